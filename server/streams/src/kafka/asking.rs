//! How are brokers of Kafka asked, and by whom?

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use feature_defs::{Connection, KafkaOptions, SaslMechanism, Server, StreamSource};
use quern_base::secret::struck_out;
use quern_http::{Token, Tokens, on_one_line, told};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::addresses;
use crate::error::{Error, Result};

/// How long a client is listened to that does not do so itself.
const HEARING: Duration = Duration::from_millis(100);
/// What is said of brokers that hang up at once.
const NONE_LEFT: &str = "brokers are down";
/// Who a broker is told that a token is of, which it does not look at.
const PRINCIPAL: &str = "quern";

/// How the brokers of a stream are asked now: secrets, tokens and certificates are read anew for each.
#[derive(Clone)]
pub(super) struct Asking {
    config: ClientConfig,
    context: Context,
}

/// What clients ask of us, and tell us.
#[derive(Clone, Default)]
pub(super) struct Context(Arc<Shared>);

#[derive(Default)]
struct Shared {
    token: Option<Token>,
    secrets: Vec<String>,
    /// Why a broker could not be asked, the last time.
    cause: Mutex<Option<String>>,
}

impl Asking {
    pub(super) async fn of(stream: &StreamSource) -> Result<Asking> {
        let mut config = ClientConfig::new();
        config
            .set("group.id", "quern")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        config.set("bootstrap.servers", servers(stream).await?.join(","));
        let mut shared = Shared::default();
        if let Some(connection) = &stream.connection {
            shared.secrets = secure(&mut config, connection)?;
            shared.token = token(connection).await?;
            shared.secrets.extend(shared.token.iter().map(|token| token.text.clone()));
        }
        Ok(Asking { config, context: Context(Arc::new(shared)) })
    }

    pub(super) fn client<C: FromClientConfigAndContext<Context>>(&self) -> Result<C> {
        self.config.create_with_context(self.context.clone()).map_err(|error| self.failed(error))
    }

    /// A client for questions, which has been given its token.
    pub(super) async fn questions(&self) -> Result<Questions> {
        let questions = Questions { asking: self.clone(), client: Arc::new(self.client()?) };
        if self.context.0.token.is_some() {
            let hears = |client: &Client| {
                hear(client);
                Ok(())
            };
            questions.ask("hearing of a token", hears).await?;
        }
        Ok(questions)
    }

    /// Why a broker cannot be asked: what it said itself, where it said something.
    pub(super) fn failed(&self, error: KafkaError) -> Error {
        let said = self.context.0.cause.lock().ok().and_then(|mut cause| cause.take());
        let mut innermost: &dyn std::error::Error = &error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let mut cause = said.unwrap_or_else(|| format!("{error}: {innermost}"));
        if cause.ends_with(NONE_LEFT) {
            cause +=
                "; where they want TLS, or who asks, the connection says so by `kafka` and `credentials`";
        }
        Error::unavailable("Kafka").because(struck_out(&on_one_line(&cause), &self.context.0.secrets))
    }
}

/// Asks all questions that there are before anything is read.
pub(super) struct Questions {
    asking: Asking,
    client: Arc<Client>,
}

pub(super) type Client = BaseConsumer<Context>;

impl Questions {
    /// What is answered, on a thread that may wait. `what` says what is done.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        question: impl FnOnce(&Client) -> std::result::Result<T, KafkaError> + Send + 'static,
    ) -> Result<T> {
        let client = Arc::clone(&self.client);
        let asked = tokio::task::spawn_blocking(move || question(&client).inspect_err(|_| hear(&client)));
        let answer = asked.await.map_err(|error| Error::internal(what, error))?;
        answer.map_err(|error| self.asking.failed(error))
    }
}

/// Takes in what is in the queue of a client: what brokers said, and what is asked of us.
fn hear(client: &Client) {
    let until = Instant::now() + HEARING;
    while Instant::now() < until {
        let _ = client.poll(HEARING / 10);
    }
}

/// Where the brokers are. In the open by address, since the client would ask again what a name means. Over TLS by the
/// names that their certificates must have, so who answers to such a name is known whatever it means.
async fn servers(stream: &StreamSource) -> Result<Vec<String>> {
    let found = addresses(&stream.reaches).await.map_err(super::refused)?;
    let is_secured = stream.connection.as_ref().is_some_and(|connection| connection.kafka.is_secured);
    Ok(match is_secured {
        true => stream.reaches.iter().map(Server::address).collect(),
        false => found.iter().map(SocketAddr::to_string).collect(),
    })
}

/// Says how brokers are spoken with and who asks; what is secret of that.
fn secure(config: &mut ClientConfig, connection: &Connection) -> Result<Vec<String>> {
    let KafkaOptions { is_secured, mechanism, ca, oauth: _ } = &connection.kafka;
    config.set("security.protocol", connection.kafka.security_protocol());
    if let Some(mechanism) = mechanism {
        config.set("sasl.mechanisms", mechanism.name());
    }
    let mut secrets = Vec::new();
    let credentials = connection.storage.credentials.iter().map(|(key, secret)| (key.as_str(), secret));
    for (key, secret) in credentials.chain(ca.iter().filter(|_| *is_secured).map(|ca| ("ssl_ca", ca))) {
        let name = match key {
            "username" => "sasl.username",
            "password" => "sasl.password",
            "certificate" => "ssl.certificate.pem",
            "private_key" => "ssl.key.pem",
            "private_key_password" => "ssl.key.password",
            "ssl_ca" => "ssl.ca.pem",
            // What tokens are asked for by.
            _ => continue,
        };
        let refuse = |why| Error::refused(format!("connection `{}` {why}", connection.name));
        let value = told(key, secret).map_err(refuse)?;
        config.set(name, &value);
        if !["username", "certificate", "ssl_ca"].contains(&key) {
            secrets.push(value);
        }
    }
    Ok(secrets)
}

async fn token(connection: &Connection) -> Result<Option<Token>> {
    if connection.kafka.mechanism != Some(SaslMechanism::OAuthBearer) {
        return Ok(None);
    }
    let tokens = Tokens { oauth: &connection.kafka.oauth, own: None, scope: None };
    let token = Token::of(connection, &tokens).await;
    token.map_err(|refused| Error::unavailable("whoever gives tokens for Kafka").because(refused.why))
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        let Ok(mut cause) = self.0.cause.lock() else { return };
        // That none is left says less than why the last one is not.
        if cause.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *cause = Some(reason.to_owned());
        }
    }

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        let token = self.0.token.as_ref().ok_or("there is no token")?;
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO) + token.holds;
        Ok(OAuthToken {
            token: token.text.clone(),
            principal_name: PRINCIPAL.to_owned(),
            lifetime_ms: i64::try_from(until.as_millis())?,
        })
    }
}

impl ConsumerContext for Context {}
