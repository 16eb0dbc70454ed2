//! What does a server answer, and is it worth asking once more?

use std::time::Duration;

use bytes::Bytes;
use quern_base::secret::struck_out;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use crate::client::{causes, on_one_line};

/// More than this no answer is, unless it is said.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 28;
/// How long one may take to its last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a server does not say what it is asked for.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The status that it answered with; none where it did not answer.
    pub status: Option<u16>,
    /// Its own word for why, a number where it is a registry of schemas.
    pub code: Option<u64>,
    /// For people, without what was told in confidence.
    pub why: String,
}

impl Refused {
    /// Of what is not as it should be, whatever was answered.
    pub fn odd(why: impl Into<String>) -> Refused {
        Refused { status: Some(200), code: None, why: why.into() }
    }

    /// Whether it may be otherwise a moment later.
    pub fn may_pass(&self) -> bool {
        self.status.is_none_or(|status| [408, 429].contains(&status) || status >= 500)
    }
}

/// Asks, and reads the answer to its end. `secrets` are struck out of what is said of a refusal.
///
/// # Errors
/// Any answer but 200, and none.
pub async fn ask(request: RequestBuilder, secrets: &[String]) -> Result<Bytes, Refused> {
    ask_within(request, secrets, ANSWER_BYTES_MAX).await
}

/// The same of an answer that has at most `bytes_max` bytes.
pub(crate) async fn ask_within(
    request: RequestBuilder,
    secrets: &[String],
    bytes_max: usize,
) -> Result<Bytes, Refused> {
    let failed = |why: String| Refused { status: None, code: None, why };
    let reply = request.timeout(ANSWER_TIMEOUT).send().await.map_err(|error| failed(causes(&error)))?;
    let status = reply.status().as_u16();
    let body = body(reply, bytes_max).await.map_err(failed)?;
    if status == 200 {
        return Ok(body);
    }
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words = [&said["error"]["message"], &said["error_description"], &said["error"], &said["message"]];
    let word = words.iter().find_map(|word| word.as_str()).map(|word| on_one_line(&struck(word, secrets)));
    let answer = format!("it answers {status}");
    let why = word
        .filter(|word| !word.is_empty())
        .map_or_else(|| answer.clone(), |word| format!("{answer}: {word}"));
    Err(Refused { status: Some(status), code: said["error_code"].as_u64(), why })
}

/// What a server says, without what it was told in confidence: secrets, and what proves who asks, which comes after
/// `Bearer` and `Basic`, up to a blank or a quote.
fn struck(said: &str, secrets: &[String]) -> String {
    let is_end = |letter: char| letter.is_whitespace() || ['"', '\'', '`'].contains(&letter);
    let (mut plain, mut is_proof) = (String::new(), false);
    for piece in struck_out(said, secrets).split_inclusive(is_end) {
        let word = piece.trim_end_matches(is_end);
        let end = &piece[word.len()..];
        plain.push_str(if is_proof && !word.is_empty() { "***" } else { word });
        plain.push_str(end);
        // More blanks may come before it.
        is_proof = end.trim().is_empty()
            && (word.ends_with("Bearer") || word.ends_with("Basic") || is_proof && word.is_empty());
    }
    plain
}

async fn body(mut reply: Response, bytes_max: usize) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(|error| causes(&error))? {
        if bytes.len() + chunk.len() > bytes_max {
            return Err(format!("it answers with more than {bytes_max} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proves_who_asks_is_struck_out() {
        let secrets = ["pass".to_owned()];
        for (said, shown) in [
            ("no `Basic dXNlcjpwYXNz` is known", "no `Basic ***` is known"),
            (
                "{\"authorization\":\"Basic  dXNlcjpwYXNz\"} of user:pass",
                "{\"authorization\":\"Basic  ***\"} of user:***",
            ),
            ("Bearer a.b-c_d=, then Bearer e", "Bearer *** then Bearer ***"),
            ("Authorization=Bearer a.b", "Authorization=Bearer ***"),
            ("a `Bearer`: nothing after it", "a `Bearer`: nothing after it"),
            ("nobody knows you", "nobody knows you"),
        ] {
            assert_eq!(struck(said, &secrets), shown);
        }
    }
}
