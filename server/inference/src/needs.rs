//! Which operators does an ONNX file need: some that ONNX Runtime does not have, some that repeat others?

use std::collections::BTreeSet;

use prost::Message;

use crate::parts::{Damaged, Function, Kind, Node, visit};

/// The domains whose operators ONNX Runtime brings along.
const DOMAINS: [&str; 9] = [
    "",
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.preview",
    "ai.onnx.preview.training",
    "ai.onnx.training",
    "com.microsoft",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
];
/// Operators that run others as often as a row says.
const REPEATING: [&str; 2] = ["Loop", "Scan"];
/// So many names are shown.
const SHOWN_MAX: usize = 5;

/// The operators of domains that ONNX Runtime does not know and the file does not define itself.
pub(crate) fn other_operators(onnx: &[u8]) -> Option<String> {
    let (mut needed, mut defined) = (BTreeSet::new(), BTreeSet::new());
    let see = &mut |kind, message: &[u8]| -> Result<_, Damaged> {
        match kind {
            Kind::Node => {
                let Node { op_type, domain } = Node::decode(message).map_err(|_| Damaged)?;
                if !DOMAINS.contains(&domain.as_str()) {
                    needed.insert((domain, op_type));
                }
            }
            Kind::Function => {
                let Function { name, domain } = Function::decode(message).map_err(|_| Damaged)?;
                defined.insert((domain, name));
            }
            _ => {}
        }
        Ok(None)
    };
    visit(onnx, see).ok()?;
    let operators: Vec<String> =
        needed.difference(&defined).map(|(domain, name)| format!("{domain}.{name}")).collect();
    (!operators.is_empty()).then(|| {
        format!(
            "the model needs the custom operators {}, and only those of ONNX and ONNX Runtime itself are there; export it \
             without them",
            list(&operators)
        )
    })
}

/// Whether rows decide how much there is to do.
pub(crate) fn repeats(onnx: &[u8]) -> bool {
    let mut repeats = false;
    let see = &mut |kind, message: &[u8]| -> Result<_, Damaged> {
        if kind == Kind::Node {
            let node = Node::decode(message).map_err(|_| Damaged)?;
            repeats |= DOMAINS.contains(&node.domain.as_str()) && REPEATING.contains(&node.op_type.as_str());
        }
        Ok(None)
    };
    visit(onnx, see).is_err() || repeats
}

fn list(names: &[String]) -> String {
    let mut shown: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN_MAX {
        shown.push(format!("{} more", names.len() - SHOWN_MAX));
    }
    shown.join(", ")
}
