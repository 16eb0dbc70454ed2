//! Who asks over a stream that stays open, message by message?
//!
//! What they showed when it began may hold no longer: a key was revoked, a token or a certificate has ended, a role was
//! taken away. So each message is asked about as a request would be, and counts as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::http::{HeaderMap, HeaderName, header};
use futures::{Stream, TryStreamExt};
use quern_access::{Caller, Proof};
use quern_server::Node;
use rustls::pki_types::UnixTime;
use tonic::Status;

use super::error::grpc_status;
use super::listen::Known;
use super::who::{API_KEY, note, shown, who};
use crate::error::Result;

/// One who asks over a stream.
#[derive(Clone)]
pub(crate) struct Asker(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    /// Who it was when the stream began.
    caller: Caller,
    /// What they showed: headers, and over which connection.
    headers: HeaderMap,
    connection: Option<Arc<Known>>,
    route: Option<MatchedPath>,
    /// Whether a message has come: the first one is counted with the call.
    has_begun: AtomicBool,
}

impl Asker {
    /// Whoever makes this call.
    ///
    /// # Errors
    /// Where nobody has settled who it is.
    pub(crate) fn of<T>(node: &Arc<Node>, request: &tonic::Request<T>) -> Result<Asker> {
        let given: &HeaderMap = request.metadata().as_ref();
        let mut headers = HeaderMap::new();
        for name in [header::AUTHORIZATION, HeaderName::from_static(API_KEY)] {
            if let Some(value) = given.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        Ok(Asker(Arc::new(Inner {
            node: Arc::clone(node),
            caller: who(request)?,
            headers,
            connection: request.extensions().get().map(Arc::clone),
            route: request.extensions().get().cloned(),
            has_begun: AtomicBool::new(false),
        })))
    }

    /// Who it was when the stream began.
    pub(crate) fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// Who it is now.
    ///
    /// # Errors
    /// `Kind::Unauthenticated` where what they showed holds no longer.
    pub(crate) async fn still(&self) -> Result<Caller> {
        let Inner { node, caller, headers, connection, route, .. } = &*self.0;
        // A command of this process, or the peer of its own socket: they showed nothing that could end.
        if *caller.proof() == Proof::Owner {
            return Ok(caller.clone());
        }
        let peer = connection.as_ref().map(|known| &**known.peer(UnixTime::now()));
        match shown(node, headers, None, peer).await {
            Ok(principal) => Ok(Caller { principal, request_id: caller.request_id.clone() }),
            Err(error) => {
                let path = route.as_ref().map_or("", MatchedPath::as_str);
                note(node, &error, (path, caller.request_id.clone()), peer);
                Err(error)
            }
        }
    }

    /// The same for a message, which is a request of theirs.
    ///
    /// # Errors
    /// As [`Asker::still`]; `Kind::Overloaded` where their roles allow no more requests now.
    pub(crate) async fn message(&self) -> Result<Caller> {
        let who = self.still().await?;
        if self.0.has_begun.swap(true, Ordering::Relaxed) {
            let node = &self.0.node;
            node.quotas.take_request(&who, &node.live().access.rights(&who), Instant::now())?;
        }
        Ok(who)
    }

    /// What comes down to them, as far as it is theirs when it does: `permit` is asked before each part.
    pub(crate) fn watch<T: Send + 'static>(
        self,
        parts: impl Stream<Item = std::result::Result<T, Status>> + Send + 'static,
        permit: impl Fn(&Caller) -> Result<()> + Send + Sync + 'static,
    ) -> impl Stream<Item = std::result::Result<T, Status>> + Send + 'static {
        let permit = Arc::new(permit);
        parts.and_then(move |part| {
            let (asker, permit) = (self.clone(), Arc::clone(&permit));
            async move {
                let permitted = asker.still().await.and_then(|who| permit(&who));
                permitted.map(|()| part).map_err(|error| grpc_status(&error))
            }
        })
    }
}
