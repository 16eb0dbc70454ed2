//! Who asks, in which request?

use std::ops::Deref;
use std::sync::Arc;

use crate::principal::Principal;

/// One who asks, and what their request is called.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub principal: Arc<Principal>,
    /// As replies and logs have it; empty where nobody named it.
    pub request_id: String,
}

impl Caller {
    /// Who runs the server: what it does by itself, and what a command does in its own process.
    pub fn owner() -> Caller {
        Caller { principal: Arc::new(Principal::owner()), request_id: String::new() }
    }
}

impl Deref for Caller {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}
