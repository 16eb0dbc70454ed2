//! Is it the server, and who asks it? One configuration of TLS, for HTTP and for Arrow Flight.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use url::{Host, Url};

use crate::error::causes;
use crate::{Credentials, Error, Result};

/// What a client of HTTP speaks.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];
const HTTPS_PORT: u16 = 443;

/// Reads the files that the credentials name.
pub(crate) fn config(credentials: &Credentials) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &credentials.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(path, &error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Invalid(causes(&error)))?
        .with_root_certificates(roots);
    let mut config = match (&credentials.certificate, &credentials.key) {
        (Some(chain), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            config
                .with_client_auth_cert(certificates(chain)?, key)
                .map_err(|error| unusable(chain, &error))?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = HTTP.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// Makes a channel that connects to `url` when it is needed. gRPC's library can do so itself, but wants other features
/// of the TLS that all share here.
pub(crate) fn channel(endpoint: &Endpoint, config: &ClientConfig, url: &Url) -> Result<Channel> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let (name, host) = server(url)?;
    let address = (host, url.port().unwrap_or(HTTPS_PORT));
    let connect = tower::service_fn(move |_: Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connect))
}

/// Whom a certificate must name, and where it is.
fn server(url: &Url) -> Result<(ServerName<'static>, String)> {
    match url.host() {
        Some(Host::Domain(name)) => {
            let server = ServerName::try_from(name.to_owned());
            Ok((server.map_err(|error| Error::Invalid(format!("{name}: {error}")))?, name.to_owned()))
        }
        Some(Host::Ipv4(address)) => Ok((std::net::IpAddr::from(address).into(), address.to_string())),
        Some(Host::Ipv6(address)) => Ok((std::net::IpAddr::from(address).into(), address.to_string())),
        None => Err(Error::Invalid(format!("{url} has no host"))),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let read = read.map_err(|error| unusable(path, &error))?;
    if read.is_empty() {
        return Err(Error::Invalid(format!("{}: expected certificates as PEM, found none", path.display())));
    }
    Ok(read)
}

fn unusable(path: &Path, error: &(dyn StdError + 'static)) -> Error {
    Error::Invalid(format!("{}: {}", path.display(), causes(error)))
}
