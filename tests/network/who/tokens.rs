//! Which tokens are believed? Real signatures, of an issuer on loopback.

use std::time::{Instant, SystemTime};

use proptest::prelude::*;
use quern_kit::identity::{self, Identity, KeysAt, Trust, Why};
use quern_kit::runtime;
use ring::hmac;
use serde_json::{Value, json};

use super::issuer::{Issuer, Signer, signed};
use super::{asking, everywhere, said};

const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 86_400_000_000;

/// What an issuer does that no issuer should.
type Fault = fn(&Issuer);

fn now_us() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64
}

/// What believes this issuer, and no other.
fn believing(issuer: &Issuer, keys: KeysAt) -> Identity {
    let issuers = vec![identity::Issuer { name: issuer.url.clone(), keys }];
    Identity::new(Trust { issuers, audience: "quern".to_owned(), sign_in: None }).unwrap()
}

async fn why(identity: &Identity, token: &str, now_us: i64) -> Result<String, Why> {
    let who = identity.who(token, now_us).await;
    who.map(|who| who.name().to_owned()).map_err(|error| *error.facts::<Why>().unwrap())
}

fn head(algorithm: &str, id: &str) -> Value {
    json!({"typ": "JWT", "alg": algorithm, "kid": id})
}

/// The claims, but for one.
fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_every_kind_are_believed() {
    let keys =
        [("r", Signer::rsa(1)), ("e", Signer::p256()), ("f", Signer::p384()), ("d", Signer::ed25519())];
    let shown: Vec<(&str, &Signer)> = keys.iter().map(|(id, key)| (*id, key)).collect();
    let issuer = Issuer::start(&shown).await;
    let (server, _) = asking(&[("jwt_issuers", issuer.url.clone())]).await;
    let claims = issuer.claims(now_us());
    for (algorithm, key) in [
        ("RS256", 0),
        ("RS384", 0),
        ("RS512", 0),
        ("PS256", 0),
        ("PS384", 0),
        ("PS512", 0),
        ("ES256", 1),
        ("ES384", 2),
        ("EdDSA", 3),
    ] {
        let (id, signer) = &keys[key];
        let token = signer.token(&head(algorithm, id), &claims);
        assert_eq!(everywhere(&server, &token).await, ["OK", "OK", "OK"], "{algorithm}");
        let several = signer.token(&head(algorithm, id), &with(&claims, "aud", json!(["other", "quern"])));
        assert_eq!(everywhere(&server, &several).await, ["OK", "OK", "OK"], "{algorithm}");
        // With the signature of another token.
        let (message, _) = token.rsplit_once('.').unwrap();
        let (_, other) = several.rsplit_once('.').unwrap();
        let told = "the token is not valid here: signature";
        let [http, grpc, flight] = everywhere(&server, &format!("{message}.{other}")).await;
        assert_eq!(http, format!("401 {told}"), "{algorithm}");
        assert!(grpc == format!("Unauthenticated {told}") && flight == grpc, "{grpc} {flight}");
    }
    assert_eq!(issuer.asked(), 1);
    server.stop().await;
}

/// What is wrong with a token, and what is told of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_tokens_that_do_not_hold() {
    let (rsa, other) = (Signer::rsa(1), Signer::rsa(2));
    let issuer = Issuer::start(&[("r", &rsa)]).await;
    let (server, key) = asking(&[("jwt_issuers", issuer.url.clone())]).await;
    let (claims, now) = (issuer.claims(now_us()), now_us() / 1_000_000);
    let of = |claims: &Value| rsa.token(&head("RS256", "r"), claims);
    let headed = |head: Value| rsa.token(&head, &claims);
    assert_eq!(everywhere(&server, &of(&claims)).await, ["OK", "OK", "OK"]);
    // The public key is no secret: whoever takes it for one signs tokens with it.
    let public = rsa.public("r")["n"].as_str().unwrap().to_owned();
    let confused = |algorithm: &str| {
        signed(&head(algorithm, "r"), &claims, |message| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), message).as_ref().to_vec()
        })
    };
    let nothing = |algorithm: &str| signed(&head(algorithm, "r"), &claims, |_| Vec::new());
    let long = with(&claims, "groups", json!(["x".repeat(12_000), "y".repeat(12_000)]));
    let plain = "";
    for (what, token, told) in [
        ("alg none", nothing("none"), plain),
        ("alg None", nothing("None"), plain),
        ("no signature", nothing("RS256"), ": signature"),
        ("HS256 by the RSA key", confused("HS256"), plain),
        ("HS512 by the RSA key", confused("HS512"), plain),
        ("RS256 by the RSA key as a secret", confused("RS256"), ": signature"),
        ("an algorithm of another kind", headed(head("ES256", "r")), plain),
        ("no algorithm", headed(json!({"kid": "r"})), plain),
        ("another key under this ID", other.token(&head("RS256", "r"), &claims), ": signature"),
        ("another audience", of(&with(&claims, "aud", json!("other"))), ": audience"),
        ("other audiences", of(&with(&claims, "aud", json!(["other", "quern2"]))), ": audience"),
        ("no audience", of(&with(&claims, "aud", Value::Null)), plain),
        ("an audience that is no text", of(&with(&claims, "aud", json!(7))), plain),
        ("another issuer", of(&with(&claims, "iss", json!("https://evil.example"))), ": issuer"),
        ("nearly the issuer", of(&with(&claims, "iss", json!(format!("{}/", issuer.url)))), ": issuer"),
        ("several issuers", of(&with(&claims, "iss", json!([issuer.url]))), plain),
        ("no issuer", of(&with(&claims, "iss", Value::Null)), plain),
        ("expired", of(&with(&claims, "exp", json!(now - 61))), ": expired"),
        ("not yet", of(&with(&claims, "nbf", json!(now + 120))), plain),
        ("made later", of(&with(&claims, "iat", json!(now + 120))), plain),
        ("no exp", of(&with(&claims, "exp", Value::Null)), plain),
        ("an exp that is no number", of(&with(&claims, "exp", json!("2100"))), plain),
        ("no sub", of(&with(&claims, "sub", Value::Null)), plain),
        ("a path as kid", headed(head("RS256", "../../etc/passwd")), ": unknown key"),
        ("an unknown kid", headed(head("RS256", "x")), ": unknown key"),
        ("a kid that is no text", headed(json!({"alg": "RS256", "kid": 7})), plain),
        ("crit", headed(json!({"alg": "RS256", "kid": "r", "crit": ["exp"], "exp": 1})), plain),
        ("crit b64", headed(json!({"alg": "RS256", "kid": "r", "crit": ["b64"], "b64": true})), plain),
        ("two parts", "a.b".to_owned(), plain),
        ("four parts", format!("{}.x", of(&claims)), plain),
        ("no JSON", "!.!.!".to_owned(), plain),
        ("an array", signed(&json!([1]), &json!([2]), |_| vec![1]), plain),
    ] {
        let told = format!("the token is not valid here{told}");
        let [http, grpc, flight] = everywhere(&server, &token).await;
        assert_eq!(http, format!("401 {told}"), "{what}");
        assert_eq!(grpc, format!("Unauthenticated {told}"), "{what}");
        assert_eq!(flight, grpc, "{what}");
    }
    // Over HTTP/2 no header is so long that it would hold one.
    let huge = server.http.get(server.address("/v1/definitions")).bearer_auth(of(&long));
    let (status, _, text) = said(huge).await;
    assert!(status == 401 && text.contains("the token is not valid here\""), "{status} {text}");
    // Keys that nobody knows were asked for, once within the minute.
    assert_eq!(issuer.asked(), 1);
    let metrics = said(server.http.get(server.address("/metrics")).bearer_auth(&key)).await.2;
    let up = format!("quern_token_issuer_up{{issuer=\"{}\"}}", issuer.url);
    assert_eq!(quern_kit::metric(&metrics, &up), Some(1.0));
    for why in ["algorithm", "issuer", "unknown_key", "signature", "audience", "expired", "early", "claims"] {
        let series = format!("quern_refused_credentials_total{{why=\"{why}\"}}");
        assert!(quern_kit::metric(&metrics, &series) >= Some(3.0), "{series} in\n{metrics}");
    }
    assert_eq!(everywhere(&server, &of(&claims)).await, ["OK", "OK", "OK"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_an_unknown_key_is_asked_for_once_a_minute() {
    let rsa = Signer::rsa(1);
    let issuer = Issuer::start(&[("r", &rsa)]).await;
    let believed = believing(&issuer, KeysAt::Discovery);
    let (claims, begun) = (issuer.claims(now_us()), now_us());
    let unknown = |number: usize| rsa.token(&head("RS256", &format!("x{number}")), &claims);
    for round in 0..4 {
        let now_us = begun + round * MINUTE_US;
        let tokens: Vec<String> = (0..20).map(unknown).collect();
        // Who read the clock first may come last.
        let asked = tokens.iter().zip(0..).map(|(token, later)| why(&believed, token, now_us + 20 - later));
        for refused in futures::future::join_all(asked).await {
            assert_eq!(refused, Err(Why::UnknownKey));
        }
        assert_eq!(issuer.asked(), round as usize + 1);
        assert!(why(&believed, &rsa.token(&head("RS256", "r"), &claims), now_us).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_an_issuer_changes_its_keys() {
    let (old, new) = (Signer::p256(), Signer::ed25519());
    let issuer = Issuer::start(&[("old", &old)]).await;
    let believed = believing(&issuer, KeysAt::Discovery);
    let (claims, begun) = (issuer.claims(now_us()), now_us());
    let before = old.token(&head("ES256", "old"), &claims);
    let after = new.token(&head("EdDSA", "new"), &claims);
    assert_eq!(why(&believed, &before, begun).await, Ok(format!("jwt:{}#ann", issuer.url)));
    // Both for a while, as issuers do it. Whoever brings the new one has it looked for.
    issuer.show(&[("old", &old), ("new", &new)]);
    assert_eq!(why(&believed, &after, begun + MINUTE_US - 1).await, Err(Why::UnknownKey));
    assert!(why(&believed, &after, begun + MINUTE_US).await.is_ok());
    assert!(why(&believed, &before, begun + MINUTE_US).await.is_ok());
    // The old one is gone: what was signed with it is forgotten too, once that is heard of.
    issuer.show(&[("new", &new)]);
    let unknown = new.token(&head("EdDSA", "x"), &claims);
    assert_eq!(why(&believed, &unknown, begun + 2 * MINUTE_US).await, Err(Why::UnknownKey));
    assert_eq!(why(&believed, &before, begun + 2 * MINUTE_US).await, Err(Why::UnknownKey));
    assert!(why(&believed, &after, begun + 2 * MINUTE_US).await.is_ok());
    assert_eq!(issuer.asked(), 3);

    // Nobody brings an unknown one: after ten minutes they are read again beside the request that finds them old.
    issuer.show(&[("new", &new), ("old", &old)]);
    assert!(why(&believed, &after, begun + 12 * MINUTE_US).await.is_ok());
    let known = new.token(&head("EdDSA", "new"), &with(&claims, "sub", json!("bob")));
    quern_kit::until("keys that are read again", async || {
        why(&believed, &known, begun + 12 * MINUTE_US).await.unwrap();
        (issuer.asked() == 4).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_an_issuer_that_is_down() {
    let rsa = Signer::rsa(1);
    let issuer = Issuer::start(&[("r", &rsa)]).await;
    let believed = believing(&issuer, KeysAt::Discovery);
    let begun = now_us();
    let mut claims = issuer.claims(begun);
    claims["exp"] = json!(begun / 1_000_000 + 10 * 86_400);
    let token = rsa.token(&head("RS256", "r"), &claims);
    let fresh = |name: &str| rsa.token(&head("RS256", "r"), &with(&claims, "sub", json!(name)));
    // It was never heard: nobody is believed, and it is asked again after five seconds.
    issuer.says.lock().is_down = true;
    assert_eq!(why(&believed, &token, begun).await, Err(Why::UnknownKey));
    issuer.says.lock().is_down = false;
    assert_eq!(why(&believed, &token, begun + 4_999_999).await, Err(Why::UnknownKey));
    let heard = begun + 5_000_000;
    assert!(why(&believed, &token, heard).await.is_ok());
    // It is silent: what it said serves for a day, for tokens of before and for others.
    issuer.says.lock().is_down = true;
    for (number, later) in [MINUTE_US, 11 * MINUTE_US, DAY_US / 2, DAY_US - 1].into_iter().enumerate() {
        assert!(why(&believed, &token, heard + later).await.is_ok(), "{later}");
        assert!(why(&believed, &fresh(&number.to_string()), heard + later).await.is_ok(), "{later}");
    }
    for later in [DAY_US, DAY_US + MINUTE_US] {
        assert_eq!(why(&believed, &token, heard + later).await, Err(Why::UnknownKey), "{later}");
        assert_eq!(why(&believed, &fresh("0"), heard + later).await, Err(Why::UnknownKey), "{later}");
    }
    issuer.says.lock().is_down = false;
    assert!(why(&believed, &token, heard + DAY_US + 2 * MINUTE_US).await.is_ok());
}

/// An answer that there are no keys is one: it withdraws those of before. One that says nothing of keys is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_withdraws_all_its_keys() {
    let rsa = Signer::rsa(1);
    let encrypts = with(&rsa.public("r"), "use", json!("enc"));
    for (text, holds) in [
        (json!({"keys": []}), false),
        (json!({"keys": [encrypts]}), false),
        (json!({"error": "come again"}), true),
    ] {
        let issuer = Issuer::start(&[("r", &rsa)]).await;
        let believed = believing(&issuer, KeysAt::Discovery);
        let (claims, begun) = (issuer.claims(now_us()), now_us());
        let token = rsa.token(&head("RS256", "r"), &claims);
        let fresh = rsa.token(&head("RS256", "r"), &with(&claims, "sub", json!("bob")));
        assert!(why(&believed, &token, begun).await.is_ok());
        issuer.says.lock().text = Some(text.to_string().into_bytes());
        // Whoever brings an unknown key has them read again.
        let unknown = rsa.token(&head("RS256", "x"), &claims);
        let later = begun + MINUTE_US;
        assert_eq!(why(&believed, &unknown, later).await, Err(Why::UnknownKey));
        for token in [&token, &fresh] {
            let told = why(&believed, token, later).await;
            assert_eq!(told.is_ok(), holds, "{text}: {told:?}");
        }
        // What it shows again is believed again.
        issuer.says.lock().text = None;
        assert!(why(&believed, &token, later + MINUTE_US).await.is_ok(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_an_issuer_that_says_something_else() {
    let rsa = Signer::rsa(1);
    let faults: [(&str, Fault); 8] = [
        ("another name", |issuer| issuer.says.lock().name = Some("https://evil.example".to_owned())),
        ("keys elsewhere in the clear", |issuer| {
            issuer.says.lock().keys_at = Some("http://keys.example/keys".to_owned());
        }),
        ("keys in a file", |issuer| issuer.says.lock().keys_at = Some("file:///etc/passwd".to_owned())),
        ("keys nowhere", |issuer| issuer.says.lock().keys_at = Some(String::new())),
        ("a redirect to another host", |issuer| {
            let elsewhere = issuer.url.replace("127.0.0.1", "localhost") + "/elsewhere";
            issuer.says.lock().redirects_to = Some(elsewhere);
        }),
        ("redirects for ever", |issuer| {
            let again = format!("{}/keys", issuer.url);
            issuer.says.lock().redirects_to = Some(again);
        }),
        ("too much", |issuer| issuer.says.lock().text = Some(vec![b' '; (1 << 20) + 1])),
        ("no keys", |issuer| issuer.says.lock().text = Some(b"{\"keys\": []}".to_vec())),
    ];
    for (what, fault) in faults {
        let issuer = Issuer::start(&[("r", &rsa)]).await;
        fault(&issuer);
        let believed = believing(&issuer, KeysAt::Discovery);
        let token = rsa.token(&head("RS256", "r"), &issuer.claims(now_us()));
        assert_eq!(why(&believed, &token, now_us()).await, Err(Why::UnknownKey), "{what}");
    }
    // A redirect at home is followed.
    let issuer = Issuer::start(&[("r", &rsa)]).await;
    issuer.says.lock().redirects_to = Some("/elsewhere".to_owned());
    let believed = believing(&issuer, KeysAt::Discovery);
    let token = rsa.token(&head("RS256", "r"), &issuer.claims(now_us()));
    assert!(why(&believed, &token, now_us()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_a_token_of_one_issuer_signed_by_another() {
    let (mine, theirs) = (Signer::p256(), Signer::p256());
    let one = Issuer::start(&[("k", &mine)]).await;
    let two = Issuer::start(&[("k", &theirs), ("l", &theirs)]).await;
    let issuers = format!("{},{}", one.url, two.url);
    let (server, _) = asking(&[("jwt_issuers", issuers)]).await;
    let claims = one.claims(now_us());
    assert_eq!(everywhere(&server, &mine.token(&head("ES256", "k"), &claims)).await[0], "OK");
    let genuine = theirs.token(&head("ES256", "k"), &two.claims(now_us()));
    assert_eq!(everywhere(&server, &genuine).await[0], "OK");
    for (id, told) in [("k", "signature"), ("l", "unknown key")] {
        let forged = theirs.token(&head("ES256", id), &claims);
        assert_eq!(everywhere(&server, &forged).await[0], format!("401 the token is not valid here: {told}"));
    }
    server.stop().await;
}

/// As Kubernetes has it, whose issuer nobody outside can ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_issuer_may_lie_in_a_file() {
    let (old, new) = (Signer::rsa(1), Signer::rsa(2));
    let issuer = Issuer::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let write = |keys: Value| std::fs::write(&file, json!({"keys": keys}).to_string()).unwrap();
    write(json!([old.public("k")]));
    let settings = [("jwt_issuers", issuer.url.clone()), ("jwt_keys", file.display().to_string())];
    let (server, _) = asking(&settings).await;
    let (claims, begun) = (issuer.claims(now_us()), now_us());
    let token = old.token(&head("RS256", "k"), &claims);
    assert_eq!(everywhere(&server, &token).await, ["OK", "OK", "OK"]);
    server.stop().await;

    let believed = believing(&issuer, KeysAt::File(file.clone()));
    // Without an ID it is the only key that fits.
    let nameless = old.token(&json!({"alg": "RS256"}), &claims);
    assert!(why(&believed, &nameless, begun).await.is_ok());
    write(json!([new.public("l")]));
    let after = new.token(&head("RS256", "l"), &claims);
    assert!(why(&believed, &after, begun + MINUTE_US).await.is_ok());
    assert_eq!(why(&believed, &token, begun + MINUTE_US).await, Err(Why::UnknownKey));
    assert_eq!(issuer.asked(), 0);
    let at = KeysAt::Url(format!("{}/keys", issuer.url));
    issuer.show(&[("k", &old)]);
    assert!(why(&believing(&issuer, at), &token, begun).await.is_ok());
}

/// Whatever one character of a token becomes, it is refused: over all places, and whichever kind of key.
#[test]
fn fault_24_a_token_with_another_character_is_refused() {
    let runtime = runtime();
    let keys = [("RS256", Signer::rsa(1)), ("ES256", Signer::p256()), ("EdDSA", Signer::ed25519())];
    let shown: Vec<(&str, &Signer)> = keys.iter().map(|(algorithm, key)| (*algorithm, key)).collect();
    let issuer = runtime.block_on(Issuer::start(&shown));
    let believed = believing(&issuer, KeysAt::Discovery);
    let (claims, now_us) = (issuer.claims(now_us()), now_us());
    let tokens: Vec<String> = keys.iter().map(|(id, key)| key.token(&head(id, id), &claims)).collect();
    for token in &tokens {
        assert!(runtime.block_on(why(&believed, token, now_us)).is_ok());
    }
    let letters = prop_oneof![
        4 => prop::sample::select(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=".map(char::from).to_vec(),
        ),
        1 => any::<char>(),
    ];
    let flips = (0..tokens.len(), any::<prop::sample::Index>(), letters);
    let config = ProptestConfig { cases: quern_kit::cases(512), ..ProptestConfig::default() };
    proptest!(config, |((token, place, letter) in flips)| {
        let token = &tokens[token];
        let mut letters: Vec<char> = token.chars().collect();
        let place = place.index(letters.len());
        prop_assume!(letters[place] != letter);
        letters[place] = letter;
        let flipped: String = letters.into_iter().collect();
        let refused = runtime.block_on(why(&believed, &flipped, now_us));
        prop_assert!(refused.is_err(), "{} at {place} of {token}", letter);
    });
}

/// What each request pays for its bearer: printed, not judged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bearer_that_is_known_costs_microseconds() {
    let keys = [("RS256", Signer::rsa(1)), ("ES256", Signer::p256()), ("EdDSA", Signer::ed25519())];
    let shown: Vec<(&str, &Signer)> = keys.iter().map(|(algorithm, key)| (*algorithm, key)).collect();
    let issuer = Issuer::start(&shown).await;
    let believed = believing(&issuer, KeysAt::Discovery);
    let (claims, now_us) = (issuer.claims(now_us()), now_us());
    let micros = async |bearers: &[String], times: usize| {
        let begun = Instant::now();
        for _ in 0..times {
            for bearer in bearers {
                believed.who(bearer, now_us).await.unwrap();
            }
        }
        begun.elapsed().as_secs_f64() * 1e6 / (times * bearers.len()) as f64
    };
    for (algorithm, key) in &keys {
        let token = |number: usize| {
            key.token(&head(algorithm, algorithm), &with(&claims, "sub", json!(number.to_string())))
        };
        let tokens: Vec<String> = (0..200).map(token).collect();
        let (first, again) = (micros(&tokens, 1).await, micros(&tokens, 50).await);
        println!("a token by {algorithm}: {first:.1} µs the first time, {again:.2} µs again");
    }
    let fresh = identity::fresh().unwrap();
    believed.keys.add([identity::KnownKey {
        id: fresh.id,
        name: "ann".to_owned(),
        sha256: fresh.sha256,
        expires_us: None,
        is_revoked: false,
    }]);
    println!("an API key: {:.2} µs", micros(&[fresh.text], 10_000).await);
}
