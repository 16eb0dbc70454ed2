//! Where is a model asked? A name is one part of a path and can be nothing else, whatever is in it.

/// Where a model predicts, or one version of it: `/v1/models/{model}[/versions/{version}]:predict`.
pub fn predict_path(model: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("/v1/models/{}/versions/{}:predict", part(model), part(version)),
        None => format!("/v1/models/{}:predict", part(model)),
    }
}

/// Where the weights of a model's versions change: `/v1/models/{model}:route`.
pub fn route_path(model: &str) -> String {
    format!("/v1/models/{}:route", part(model))
}

/// `name` in percent-encoding, but for what RFC 3986 never reserves.
fn part(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        assert_eq!(predict_path("delay-2.v1", None), "/v1/models/delay-2.v1:predict");
        assert_eq!(
            predict_path("m", Some("2/../../apply?")),
            "/v1/models/m/versions/2%2F..%2F..%2Fapply%3F:predict"
        );
        assert_eq!(predict_path("../apply?", None), "/v1/models/..%2Fapply%3F:predict");
        assert_eq!(predict_path("a b#c%2F", None), "/v1/models/a%20b%23c%252F:predict");
        assert_eq!(route_path("é:predict"), "/v1/models/%C3%A9%3Apredict:route");
    }
}
