//! What is a secret of a connection now?

use feature_defs::Secret;
use quern_base::secret;

/// Those that are texts of several lines, as files of keys and certificates are.
const OF_SEVERAL_LINES: [&str; 4] = ["service_account_key", "certificate", "private_key", "ssl_ca"];

/// What a secret is, now; or what is wrong with it, after the name of whose it is. `key` names it.
///
/// # Errors
/// Where it is told nowhere, or is none.
pub fn told(key: &str, secret: &Secret) -> Result<String, String> {
    let found = match secret {
        Secret::Env(name) => secret::of_env(name),
        Secret::File(path) => secret::of_file(path),
    };
    // A client would take it for the end of a header.
    let is_sound = |value: &String| !value.contains(char::is_control) || OF_SEVERAL_LINES.contains(&key);
    let odd = || "which holds a control character".to_owned();
    let sound = found.and_then(|value| if is_sound(&value) { Ok(value) } else { Err(odd()) });
    sound.map_err(|why| format!("has `{key}` told by {secret}, {why}"))
}
