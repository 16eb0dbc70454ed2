//! How are many keys, or many keys and rows, held? One after another in a buffer: not an allocation for each.

use std::borrow::Cow;

use quern_engine::ViewId;

/// Encoded keys and rows, one after another in one buffer each.
#[derive(Debug, Default)]
pub struct Rows {
    keys: Vec<u8>,
    rows: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl Rows {
    /// Adds a row; `write` appends its bytes.
    pub fn push(&mut self, view: ViewId, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.keys.extend(view.0.to_be_bytes());
        self.keys.extend_from_slice(key);
        write(&mut self.rows);
        self.ends.push((self.keys.len(), self.rows.len()));
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.keys.len() + self.rows.len()
    }

    /// Each key, without its view, and its row.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.len()).map(|i| {
            let (key, row) = self.get(i);
            (&key[size_of::<ViewId>()..], row)
        })
    }

    /// The places of all rows, ascending by key.
    pub(super) fn in_key_order(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.len()).collect();
        places.sort_unstable_by(|a, b| self.get(*a).0.cmp(self.get(*b).0));
        places
    }

    pub(crate) fn get(&self, i: usize) -> (&[u8], &[u8]) {
        let (key, row) = if i == 0 { (0, 0) } else { self.ends[i - 1] };
        (&self.keys[key..self.ends[i].0], &self.rows[row..self.ends[i].1])
    }
}

/// Keys to look up, of any number of views.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Wanted {
    /// Adds a key; a row without one (a join key is null) is nobody's and is found nowhere.
    pub fn push(&mut self, view: ViewId, key: Option<&[u8]>) {
        if let Some(key) = key {
            self.bytes.extend(view.0.to_be_bytes());
            self.bytes.extend_from_slice(key);
        }
        self.ends.push(self.bytes.len());
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The same keys, at most `keys` at a time.
    pub fn in_parts(&self, keys: usize) -> impl Iterator<Item = Cow<'_, Wanted>> {
        let whole = (self.len() <= keys).then_some(Cow::Borrowed(self));
        let parts = if whole.is_some() { &[] } else { self.ends.as_slice() }.chunks(keys);
        let mut start = 0;
        whole.into_iter().chain(parts.map(move |ends| {
            let before = start;
            start = ends.last().copied().unwrap_or(start);
            let bytes = self.bytes[before..start].to_vec();
            Cow::Owned(Wanted { bytes, ends: ends.iter().map(|end| end - before).collect() })
        }))
    }

    /// The key, where there is one; empty where it is nobody's.
    pub(super) fn only(&self) -> Option<&[u8]> {
        (self.ends.len() == 1).then_some(&self.bytes)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}
