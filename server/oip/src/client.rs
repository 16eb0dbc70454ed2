//! Who asks another server for what a model of its says?

use std::io;
use std::sync::Arc;
use std::time::Duration;

use feature_defs::Server;
use hyper_util::rt::TokioIo;
use quern_base::addresses::resolve;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::messages::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse, ModelRequest};

/// How long it may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// What names a file of the authorities that are trusted, instead of the system's.
const AUTHORITIES: &str = "SSL_CERT_FILE";
/// The longest answer.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Why a server has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Of which kind it is.
    pub why: Why,
    /// In the words of the server, or of the network; they may quote what was sent.
    pub said: String,
}

/// Kinds of failure, as far as whoever asks goes on in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has no such model.
    NotFound,
    /// There was no time, or nobody waits any more.
    Late,
    /// It is not there.
    Away,
    /// It has too much to do.
    Busy,
    /// It says no, or something that is no answer.
    Other,
}

impl From<Status> for Failed {
    fn from(status: Status) -> Failed {
        let why = match status.code() {
            Code::NotFound => Why::NotFound,
            Code::DeadlineExceeded | Code::Cancelled => Why::Late,
            Code::Unavailable => Why::Away,
            Code::ResourceExhausted => Why::Busy,
            _ => Why::Other,
        };
        let said = match (status.message(), std::error::Error::source(&status)) {
            ("", Some(source)) => causes(source),
            ("", None) => format!("{:?}", status.code()),
            (message, _) => message.to_owned(),
        };
        Failed { why, said }
    }
}

/// An inference server, connected to when it is first asked, and again when it has gone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    is_secured: bool,
}

impl Client {
    /// Of `server`. Only within a runtime of tokio.
    ///
    /// # Errors
    /// A host that no certificate could name.
    pub fn new(server: &Server) -> io::Result<Client> {
        let tls = match server.is_secured() {
            true => {
                let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
                Some((TlsConnector::from(Arc::new(config()?)), name))
            }
            false => None,
        };
        let scheme = if server.is_secured() { "https" } else { "http" };
        let uri = format!("{scheme}://{}", server.address());
        let endpoint = Endpoint::from_shared(uri).map_err(io::Error::other)?;
        let (host, port) = (server.host.clone(), server.port);
        let connect = tower::service_fn(move |_: Uri| {
            let (host, tls) = (host.clone(), tls.clone());
            async move {
                // Whoever names a server in its definitions, by leave of a connection, names its very host.
                let addresses = resolve((&host, port), &[&host]).await?;
                let stream = TcpStream::connect(&*addresses).await?;
                stream.set_nodelay(true)?;
                let stream: Box<dyn Stream> = match tls {
                    None => Box::new(stream),
                    Some((connector, name)) => {
                        Box::new(connector.connect(name, stream).await.map_err(in_clear)?)
                    }
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = endpoint.connect_timeout(CONNECT_MAX);
        let channel = endpoint.connect_with_connector_lazy(connect);
        Ok(Client { channel, is_secured: server.is_secured() })
    }

    /// What a model takes and gives.
    ///
    /// # Errors
    /// What the server says, or why it does not.
    pub async fn metadata(&self, name: &str, version: &str) -> Result<ModelMetadataResponse, Failed> {
        let mut request = Request::new(ModelRequest { name: name.to_owned(), version: version.to_owned() });
        request.set_timeout(CONNECT_MAX);
        within(CONNECT_MAX, self.call("/inference.GRPCInferenceService/ModelMetadata", request)).await
    }

    /// What a model says, within this time. `traceparent` says in which trace it is asked.
    ///
    /// # Errors
    /// What the server says, or why it does not.
    pub async fn infer(
        &self,
        request: ModelInferRequest,
        time: Duration,
        traceparent: Option<&str>,
    ) -> Result<ModelInferResponse, Failed> {
        let mut request = Request::new(request);
        request.set_timeout(time);
        if let Some(traceparent) = traceparent.and_then(|text| text.parse().ok()) {
            request.metadata_mut().insert("traceparent", traceparent);
        }
        within(time, self.call("/inference.GRPCInferenceService/ModelInfer", request)).await
    }

    async fn call<M, R>(&self, path: &'static str, request: Request<M>) -> Result<R, Failed>
    where
        M: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        grpc.ready().await.map_err(|error| Failed { why: Why::Away, said: self.hinted(causes(&error)) })?;
        let codec: ProstCodec<M, R> = ProstCodec::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(path), codec).await;
        let answer = answer.map_err(Failed::from);
        Ok(answer.map_err(|failed| Failed { said: self.hinted(failed.said), ..failed })?.into_inner())
    }

    /// A server that speaks TLS hangs up on whoever does not.
    fn hinted(&self, said: String) -> String {
        // How that looks depends on whether its alert or its end is seen first.
        let hangs_up = ["operation was canceled", "http2 error"].iter().any(|words| said.contains(words));
        match !self.is_secured && hangs_up {
            true => format!("it does not go on ({said}); if it speaks TLS, name it as `grpcs://`"),
            false => said,
        }
    }
}

/// An answer within this time: the deadline that the server is told knows nothing of one that is still to be connected
/// to, nor of one that begins to answer and falls silent.
async fn within<T>(time: Duration, call: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let answer = tokio::time::timeout(time, call).await;
    answer.unwrap_or_else(|_| Err(Failed { why: Why::Late, said: "no answer came in time".to_owned() }))
}

/// What a connection is made of.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// What comes of TLS with a server that speaks none.
fn in_clear(error: io::Error) -> io::Error {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(rustls::Error::InvalidMessage(_)) => {
            io::Error::other(format!("it does not speak TLS ({error}); name it as `grpc://`"))
        }
        _ => error,
    }
}

/// Whom the system believes.
fn config() -> io::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    let named = std::env::var_os(AUTHORITIES);
    match found.errors.first() {
        // Of the system's own, one that cannot be read keeps nobody from the others.
        Some(error) if named.is_some() || roots.is_empty() => {
            return Err(io::Error::other(format!("whom to trust ({AUTHORITIES}) cannot be read: {error}")));
        }
        None if roots.is_empty() => {
            let help = "install `ca-certificates`, or name a file of theirs in";
            return Err(io::Error::other(format!(
                "this machine trusts no certificate authority: {help} {AUTHORITIES}"
            )));
        }
        _ => {}
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// An error and what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    said
}
