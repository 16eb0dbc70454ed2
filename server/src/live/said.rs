//! What does one key of a definition say: a text, or a list that can be compared item by item?

use std::fmt;

/// A text, perhaps with a list in it, whose items may have lists of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The text; of one with a list, what comes before the list.
    pub(crate) text: String,
    /// The list.
    pub(crate) items: Vec<Said>,
    /// What comes after it.
    pub(crate) end: String,
}

impl Said {
    /// Whether both are the same but for what is in their lists.
    pub(crate) fn is_of(&self, other: &Said) -> bool {
        self.text == other.text && self.end == other.end && self.items.is_empty() == other.items.is_empty()
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        for (place, item) in self.items.iter().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            item.fmt(f)?;
        }
        f.write_str(&self.end)
    }
}

impl<T: AsRef<str>> From<T> for Said {
    fn from(text: T) -> Said {
        Said { text: text.as_ref().to_owned(), ..Said::default() }
    }
}

impl<T: Into<Said>> FromIterator<T> for Said {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Said {
        Said { items: items.into_iter().map(Into::into).collect(), ..Said::default() }
    }
}
