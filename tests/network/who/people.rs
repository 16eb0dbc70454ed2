//! People in a browser: how they sign in, what their cookie shows, and what a page of elsewhere gets of it.
//!
//! Servers are reached as through a proxy that terminates TLS and passes `Host` on: the browser is this test, which
//! follows redirects and keeps cookies by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use quern_kit::identity::{self, Identity, KeysAt, Registration, Trust, Why, parameters};
use quern_kit::{Repository, Server};
use reqwest::header::{HeaderMap, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Url};
use serde_json::{Value, json};

use super::issuer::{Issuer, Signer};
use super::provider::{CLIENT, PUBLIC_URL};
use super::{DEFINITIONS, Empty, call, flights};

const ROLE: &str = "---\nkind: Role\nname: risk\nmembers: [{jwt: {claim: groups, has: risk}}]\n";
const MINUTE_US: i64 = 60_000_000;

fn now_us() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64
}

/// An issuer that lets Ann in, who is of `risk`.
async fn letting_in() -> Issuer {
    let key = Arc::new(Signer::p256());
    let issuer = Issuer::start(&[("k", &key)]).await;
    {
        let people = &mut issuer.says.lock().people;
        people.signs = Some(("k".to_owned(), key));
        people.claims = json!({"groups": ["risk"]});
    }
    issuer
}

/// A server at which people sign in by this issuer, and a key of it.
async fn letting_in_by(issuer: &Issuer, settings: &[(&str, String)]) -> (Server, String) {
    let repository = Repository::new(&format!("{DEFINITIONS}{ROLE}"));
    let ours = [
        ("auth", "required".to_owned()),
        ("admins", "key:ann".to_owned()),
        ("jwt_issuers", issuer.url.clone()),
        ("oidc_client_id", CLIENT.to_owned()),
        ("public_url", PUBLIC_URL.to_owned()),
    ];
    let node = repository.open_applied_with(&[&ours, settings].concat()).await;
    let key = node.key("ann").await;
    (Server::of(repository, node).await, key)
}

/// A browser with the cookies of one site.
struct Browser {
    http: Client,
    cookies: BTreeMap<String, String>,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn location(&self) -> &str {
        self.headers[LOCATION].to_str().unwrap()
    }

    fn cookie(&self, name: &str) -> &str {
        let all = self.headers.get_all(SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap());
        all.into_iter().find(|cookie| cookie.starts_with(&format!("{name}="))).unwrap()
    }
}

impl Browser {
    fn new() -> Browser {
        let http = Client::builder().redirect(Policy::none()).build().unwrap();
        Browser { http, cookies: BTreeMap::new() }
    }

    /// A request to a server, as the proxy in front passes it on; of a page of the site `of`.
    fn ask(&self, server: &Server, method: &str, path: &str, of: &str) -> RequestBuilder {
        let asked = self.http.request(method.parse().unwrap(), server.address(path));
        let asked = asked.header("host", "quern.test").header("sec-fetch-site", of);
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        match cookies.is_empty() {
            true => asked,
            false => asked.header("cookie", cookies.join("; ")),
        }
    }

    async fn send(&mut self, asked: RequestBuilder) -> Reply {
        let reply = asked.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        for cookie in headers.get_all(SET_COOKIE) {
            let (pair, rest) = cookie.to_str().unwrap().split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match rest.contains("Max-Age=0;") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        Reply { status, headers, text: reply.text().await.unwrap() }
    }

    /// Goes to the issuer, and gives where that sends them back to.
    async fn away(&mut self, server: &Server, to: &str) -> String {
        let begun = self.ask(server, "GET", &format!("/login{to}"), "none");
        let begun = self.send(begun).await;
        assert_eq!(begun.status, 302, "{}", begun.text);
        let there = self.http.get(begun.location()).send().await.unwrap();
        let back = there.headers()[LOCATION].to_str().unwrap();
        back.strip_prefix(PUBLIC_URL).unwrap().to_owned()
    }

    /// Comes back from there.
    async fn back(&mut self, server: &Server, path: &str) -> Reply {
        let asked = self.ask(server, "GET", path, "cross-site").header("sec-fetch-mode", "navigate");
        self.send(asked).await
    }

    async fn sign_in(&mut self, server: &Server) -> Reply {
        let back = self.away(server, "").await;
        self.back(server, &back).await
    }

    async fn me(&mut self, server: &Server) -> Result<Value, u16> {
        let asked = self.ask(server, "GET", "/v1/me", "same-origin");
        let reply = self.send(asked).await;
        if reply.status == 200 { Ok(serde_json::from_str(&reply.text).unwrap()) } else { Err(reply.status) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ann_signs_in_at_one_server_and_comes_back_to_another() {
    let issuer = letting_in().await;
    let (one, _) = letting_in_by(&issuer, &[("oidc_scopes", "openid groups".to_owned())]).await;
    let (two, _) = letting_in_by(&issuer, &[]).await;
    let mut browser = Browser::new();
    assert_eq!(browser.me(&one).await, Err(401));
    let back = browser.away(&one, "?to=/models%3Fname=a%26version=1").await;
    let reply = browser.back(&two, &back).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // By a page and not by a redirect, whose request would be of the issuer's site.
    assert!(reply.text.contains("content=\"0;url=/models?name=a&amp;version=1\""), "{}", reply.text);
    assert_eq!(reply.headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    assert_eq!(reply.headers["cache-control"], "no-store");
    let (cookie, rest) = reply.cookie("__Host-quern").split_once("; ").unwrap();
    let seconds = rest.strip_prefix("Path=/; Max-Age=").and_then(|rest| rest.split_once("; "));
    let (seconds, rest) = seconds.unwrap();
    assert!((600..=660).contains(&seconds.parse::<i64>().unwrap()), "{seconds}");
    assert_eq!(rest, "HttpOnly; SameSite=Strict; Secure");
    assert_eq!(browser.cookies.len(), 1, "nothing is left of the sign-in");
    let me = json!({"principal": format!("jwt:{}#ann", issuer.url), "roles": ["risk"]});
    for server in [&one, &two] {
        assert_eq!(browser.me(server).await, Ok(me.clone()));
    }
    assert!(!cookie.contains("opaque"));

    let left = browser.ask(&one, "POST", "/logout", "same-origin");
    assert_eq!(browser.send(left).await.status, 204);
    assert_eq!((browser.me(&one).await, browser.cookies.len()), (Err(401), 0));
    // Without one there is nothing to leave.
    let left = browser.ask(&one, "POST", "/logout", "same-origin");
    assert_eq!(browser.send(left).await.status, 204);
    for server in [one, two] {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_elsewhere_gets_nothing_by_the_cookie() {
    let issuer = letting_in().await;
    let (server, key) = letting_in_by(&issuer, &[]).await;
    let mut browser = Browser::new();
    assert_eq!(browser.sign_in(&server).await.status, 200);
    let token = browser.cookies["__Host-quern"].clone();
    let cookie = format!("__Host-quern={token}");
    let index = "/v2/repository/index";
    let site = |site| ("sec-fetch-site", site);
    for (method, path, given, expected) in [
        ("GET", "/v1/me", &[][..], 200),
        ("GET", "/v1/me", &[site("none")], 200),
        ("GET", "/v1/me", &[site("same-site")], 403),
        ("GET", "/v1/me", &[site("cross-site")], 403),
        ("GET", "/v1/me", &[site("cross-site"), ("sec-fetch-mode", "navigate")], 403),
        ("POST", index, &[site("same-origin")], 200),
        ("POST", index, &[("origin", PUBLIC_URL)], 200),
        ("POST", index, &[], 403),
        ("POST", index, &[site("none")], 403),
        ("POST", index, &[site("same-site")], 403),
        ("POST", index, &[site("same-site"), ("origin", PUBLIC_URL)], 403),
        ("POST", index, &[site("cross-site"), ("origin", "https://evil.example")], 403),
        ("POST", index, &[("origin", "https://evil.example")], 403),
        ("POST", index, &[("origin", "http://quern.test")], 403),
        ("POST", "/logout", &[], 403),
        ("POST", "/logout", &[site("cross-site"), ("sec-fetch-mode", "navigate")], 403),
        ("GET", "/login", &[site("cross-site"), ("sec-fetch-mode", "navigate")], 403),
        ("GET", "/login/callback", &[site("cross-site"), ("sec-fetch-mode", "no-cors")], 403),
        ("POST", "/login/callback", &[site("cross-site"), ("sec-fetch-mode", "navigate")], 403),
    ] {
        let asked = browser.http.request(method.parse().unwrap(), server.address(path));
        let mut asked = asked.header("host", "quern.test").header("cookie", &cookie);
        for (name, value) in given {
            asked = asked.header(*name, *value);
        }
        let reply = browser.send(asked.body("{}")).await;
        assert_eq!(reply.status, expected, "{method} {path} {given:?}: {}", reply.text);
    }

    // Another credential is what counts, and what is wrong with that.
    let asked = browser.ask(&server, "GET", "/v1/me", "same-origin").bearer_auth(&key);
    assert!(browser.send(asked).await.text.contains("\"key:ann\""));
    let asked = browser.ask(&server, "POST", index, "same-site").header("x-api-key", &key).body("{}");
    assert_eq!(browser.send(asked).await.status, 200);
    let asked = browser.ask(&server, "GET", "/v1/me", "same-origin").bearer_auth("a.b.c");
    assert_eq!(browser.send(asked).await.status, 401);

    // A cookie shows nothing over gRPC and Flight, whatever a request calls itself.
    let status =
        call::<_, Empty>(server.client.url(), "ServerMetadata", Empty {}, &[("cookie", &cookie)]).await;
    assert_eq!(status.unwrap_err().code(), tonic::Code::Unauthenticated);
    assert_eq!(flights(&server, &[]).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    for path in
        ["/arrow.flight.protocol.FlightService/ListFlights", "/inference.GRPCInferenceService/ServerMetadata"]
    {
        let asked = browser.ask(&server, "POST", path, "same-origin");
        assert_eq!(browser.send(asked).await.status, 401, "{path}");
    }
    // An ID token is no bearer, nor does a token for something else sign anybody in.
    let asked = browser.http.get(server.address("/v1/me")).bearer_auth(&token);
    let reply = browser.send(asked).await;
    assert!(reply.status == 401 && reply.text.contains("audience"), "{}", reply.text);
    let signs = issuer.says.lock().people.signs.as_ref().map(|(_, key)| Arc::clone(key)).unwrap();
    let mut claims = issuer.claims(now_us());
    let of = |claims: &Value| signs.token(&json!({"alg": "ES256", "kid": "k"}), claims);
    browser.cookies.insert("__Host-quern".to_owned(), of(&claims));
    assert_eq!(browser.me(&server).await, Err(401));
    claims["aud"] = json!(CLIENT);
    browser.cookies.insert("__Host-quern".to_owned(), of(&claims));
    assert_eq!(browser.me(&server).await, Err(401), "it is of no sign-in");
    claims["nonce"] = json!("");
    browser.cookies.insert("__Host-quern".to_owned(), of(&claims));
    assert_eq!(browser.me(&server).await, Err(401), "it is of no sign-in either");
    claims["nonce"] = json!("n");
    for kind in ["at+jwt", "application/at+jwt", "logout+jwt"] {
        let token = signs.token(&json!({"alg": "ES256", "kid": "k", "typ": kind}), &claims);
        browser.cookies.insert("__Host-quern".to_owned(), token);
        assert_eq!(browser.me(&server).await, Err(401), "{kind}");
    }
    browser.cookies.insert("__Host-quern".to_owned(), of(&claims));
    assert!(browser.me(&server).await.is_ok());
    // What tells everybody the same is told whoever follows a link of a sibling, too.
    for (path, status) in [("/login", 302), ("/v2/health/live", 200), ("/v1/me", 403)] {
        let asked = browser.ask(&server, "GET", path, "same-site");
        assert_eq!(browser.send(asked).await.status, status, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_that_is_not_this_one_ends_nowhere() {
    let issuer = letting_in().await;
    let (server, key) = letting_in_by(&issuer, &[]).await;
    let mut browser = Browser::new();
    let check = |reply: &Reply, status: u16, part: &str| {
        assert!(reply.status == status && reply.text.contains(part), "{} {}", reply.status, reply.text);
        assert!(reply.headers.get_all(SET_COOKIE).iter().next().is_none(), "nobody has signed in");
        assert_eq!(reply.headers["content-type"], "application/json");
    };
    // Without a sign-in, and with the end of another one: an attacker's, say.
    let theirs = Browser::new().away(&server, "").await;
    check(&browser.back(&server, &theirs).await, 400, "no sign-in is under way");
    let ours = browser.away(&server, "").await;
    check(&browser.back(&server, &theirs).await, 400, "not the end of the sign-in");
    let code = &parameters(ours.split_once('?').unwrap().1).unwrap()["code"];
    check(&browser.back(&server, &format!("/login/callback?code={code}")).await, 400, "not the end");
    check(&browser.back(&server, &format!("{ours}&state=x")).await, 400, "twice");
    check(&browser.back(&server, &format!("{ours}&iss=https://evil.example")).await, 401, "issuer");
    // It ends once.
    let kept = browser.cookies.clone();
    assert_eq!(browser.back(&server, &ours).await.status, 200);
    browser.cookies = kept;
    check(&browser.back(&server, &ours).await, 400, "over already");
    // What the issuer says is told as text of JSON.
    issuer.says.lock().people.denies = Some("<script>alert(1)</script>".to_owned());
    check(&browser.sign_in(&server).await, 403, "access_denied <script>");
    issuer.says.lock().people.denies = None;

    let now = now_us() / 1_000_000;
    for (claims, part) in [
        (json!({"nonce": "another"}), "the token is not valid here"),
        (json!({"nonce": null}), "the token is not valid here"),
        (json!({"aud": "another"}), "audience"),
        (json!({"aud": [CLIENT, "another"]}), "audience"),
        (json!({"azp": "another"}), "audience"),
        (json!({"exp": now - 61}), "expired"),
        (json!({"iss": "https://evil.example"}), "issuer"),
        (json!({"sub": ""}), "the token is not valid here"),
    ] {
        issuer.says.lock().people.claims = claims;
        check(&browser.sign_in(&server).await, 401, part);
    }
    issuer.says.lock().people.claims = json!({"aud": [CLIENT, "another"], "azp": CLIENT});
    assert_eq!(browser.sign_in(&server).await.status, 200);
    issuer.says.lock().people.claims = json!({"groups": ["x".repeat(4_000)]});
    check(&browser.sign_in(&server).await, 413, "a browser keeps 4096 in a cookie");

    for to in ["//evil.example", "https://evil.example", "%2F%5Cevil.example", "models", "/%0a", "/%22%3E"] {
        let asked = browser.ask(&server, "GET", &format!("/login?to={to}"), "none");
        check(&browser.send(asked).await, 400, "`to` is a path of this server");
    }
    let metrics = server.http.get(server.address("/metrics")).bearer_auth(&key);
    let metrics = browser.send(metrics).await.text;
    let nonces = quern_kit::metric(&metrics, "quern_refused_credentials_total{why=\"nonce\"}");
    assert!(nonces >= Some(2.0), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_issuer_wants_a_secret_where_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    for secret_in in [None, Some("client_secret_basic"), Some("client_secret_post")] {
        let issuer = letting_in().await;
        {
            let people = &mut issuer.says.lock().people;
            (people.secret, people.secret_in) = (Some("s:e cr/et+".to_owned()), secret_in);
            people.names_itself = true;
        }
        std::fs::write(&file, "another\n").unwrap();
        let (server, _) = letting_in_by(&issuer, &[("oidc_client_secret", file.display().to_string())]).await;
        let mut browser = Browser::new();
        let reply = browser.sign_in(&server).await;
        assert!(reply.status == 503 && !reply.text.contains("another"), "{} {}", reply.status, reply.text);
        // A new one wants no restart.
        std::fs::write(&file, "s:e cr/et+\n").unwrap();
        assert_eq!(browser.sign_in(&server).await.status, 200, "{secret_in:?}");
        // It says that it names itself, and does not: whoever sent them back may be another one.
        issuer.says.lock().people.names_itself = false;
        assert_eq!(browser.sign_in(&server).await.status, 401);
        server.stop().await;
    }
    let issuer = letting_in().await;
    let repository = Repository::new(DEFINITIONS);
    let settings = [
        ("auth", "required".to_owned()),
        ("jwt_issuers", issuer.url.clone()),
        ("oidc_client_id", CLIENT.to_owned()),
        ("oidc_client_secret", folder.path().join("nothing").display().to_string()),
        ("public_url", PUBLIC_URL.to_owned()),
    ];
    let error = repository.open_with(&settings).await.err().unwrap().to_string();
    assert!(error.contains("`oidc_client_secret`") && error.contains("nothing"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_signs_in_there_is_no_such_path() {
    let (server, key) = super::asking(&[]).await;
    let mut browser = Browser::new();
    for (method, path) in [("GET", "/login"), ("GET", "/login/callback"), ("POST", "/logout")] {
        let asked = browser.http.request(method.parse().unwrap(), server.address(path));
        assert_eq!(browser.send(asked).await.status, 401, "{path}");
        let asked = browser.http.request(method.parse().unwrap(), server.address(path)).bearer_auth(&key);
        assert_eq!(browser.send(asked).await.status, 404, "{path}");
    }
    server.stop().await;
}

/// What signs people in at this issuer.
fn signing_in(issuer: &Issuer) -> Identity {
    let issuers = vec![identity::Issuer { name: issuer.url.clone(), keys: KeysAt::Discovery }];
    let registration = Registration {
        issuer: issuer.url.clone(),
        client_id: CLIENT.to_owned(),
        client_secret: None,
        scopes: "openid".to_owned(),
        redirect_uri: format!("{PUBLIC_URL}/login/callback"),
    };
    Identity::new(Trust { issuers, audience: "quern".to_owned(), sign_in: Some(registration) }).unwrap()
}

/// A sign-in from its beginning to its end: the token, or why there is none.
async fn signed_in(identity: &Identity, now_us: i64) -> Result<String, String> {
    let sign_in = identity.sign_in.as_ref().unwrap();
    let begun = sign_in.begin(now_us).await.map_err(|error| error.to_string())?;
    let http = Client::builder().redirect(Policy::none()).build().unwrap();
    let there = http.get(begun.location).send().await.unwrap();
    let back = Url::parse(there.headers()[LOCATION].to_str().unwrap()).unwrap();
    let reply = parameters(back.query().unwrap()).unwrap();
    let ended = sign_in.end(&begun.secret, &reply, now_us).await;
    ended.map(|ended| ended.token).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_changes_its_keys_while_ann_is_signed_in() {
    let issuer = letting_in().await;
    let (identity, begun) = (signing_in(&issuer), now_us());
    let who = async |token: &str, now_us| {
        let who = identity.sign_in.as_ref().unwrap().who(token, now_us).await;
        who.map(drop).map_err(|error| *error.facts::<Why>().unwrap())
    };
    let before = signed_in(&identity, begun).await.unwrap();
    let next = Arc::new(Signer::p256());
    issuer.show(&[("l", &next)]);
    issuer.says.lock().people.signs = Some(("l".to_owned(), next));
    assert_eq!(who(&before, begun).await, Ok(()), "as long as nobody has heard of it");
    let after = signed_in(&identity, begun + MINUTE_US).await.unwrap();
    assert_eq!(who(&after, begun + MINUTE_US).await, Ok(()));
    assert_eq!(who(&before, begun + MINUTE_US).await, Err(Why::UnknownKey));
    assert_eq!(who(&after, begun + 11 * MINUTE_US).await, Err(Why::Expired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_is_away_lets_nobody_in_and_nobody_out() {
    let issuer = letting_in().await;
    let (identity, begun) = (signing_in(&issuer), now_us());
    issuer.says.lock().is_down = true;
    let told = "gives no answer to this server";
    assert!(signed_in(&identity, begun).await.unwrap_err().contains(told));
    issuer.says.lock().is_down = false;
    assert!(signed_in(&identity, begun + 4_999_999).await.unwrap_err().contains(told), "asked once in 5 s");
    let token = signed_in(&identity, begun + 5_000_000).await.unwrap();
    issuer.says.lock().is_down = true;
    let who = identity.sign_in.as_ref().unwrap().who(&token, begun + 5 * MINUTE_US).await;
    assert!(who.is_ok(), "who has signed in has");
}
