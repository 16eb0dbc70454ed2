//! Which names of a document stand for definitions, and what does everybody else call these?
//!
//! Once a document has its full names, all that comes after does without projects, but for who may use what.

use crate::project::{Projects, qualified};
use crate::shape::{Object, Shape};
use crate::yaml::{Entry, Node, Value};

/// Gives what `document` declares, and whatever it names, their full names.
pub(super) fn qualify(object: &Object, document: &mut Node, projects: &Projects<'_>) {
    let own = document.loc.project().to_owned();
    let names = Names { own: &own, projects };
    names.object(object, document);
    if let Value::Map(entries) = &mut document.value
        && let Some(Entry { value, .. }) = entries.iter_mut().find(|entry| entry.key == "name")
    {
        rewrite(value, |name| qualified(&own, name));
    }
}

struct Names<'a> {
    own: &'a str,
    projects: &'a Projects<'a>,
}

impl Names<'_> {
    fn object(&self, object: &Object, node: &mut Node) {
        let Value::Map(entries) = &mut node.value else { return };
        for entry in entries {
            if let Some(key) = object.key(&entry.key) {
                self.value(&key.shape, &mut entry.value);
            }
        }
    }

    fn value(&self, shape: &Shape, node: &mut Node) {
        match (shape, &mut node.value) {
            (Shape::Reference | Shape::ReferenceOrAll, Value::Scalar { .. }) => {
                rewrite(node, |text| if text == "*" { text.to_owned() } else { self.full(text) });
            }
            (Shape::FeatureReference, Value::Scalar { .. }) => {
                rewrite(node, |text| match text.split_once(':') {
                    Some((view, feature)) => format!("{}:{feature}", self.full(view)),
                    None => text.to_owned(),
                })
            }
            (Shape::List(item), Value::List(items)) => {
                items.iter_mut().for_each(|node| self.value(item, node))
            }
            (Shape::Object(object) | Shape::Short { object, .. }, Value::Map(_)) => self.object(object, node),
            (Shape::Short { key, object }, Value::Scalar { .. }) => {
                if let Some(key) = object.key(key) {
                    self.value(&key.shape, node);
                }
            }
            _ => {}
        }
    }

    fn full(&self, text: &str) -> String {
        self.projects.full(self.own, text)
    }
}

/// A text that is empty is a mistake that was reported, and stays one.
fn rewrite(node: &mut Node, full: impl Fn(&str) -> String) {
    if let Value::Scalar { text, .. } = &mut node.value
        && !text.is_empty()
    {
        *text = full(text);
    }
}
