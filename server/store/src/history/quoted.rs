//! How does a text stand in a definition?

/// `text` as YAML reads it back, within braces too.
pub fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.' | '<' | '>');
    let is_word = text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(is_plain);
    // These YAML reads as something else, as do readers of older versions.
    let others = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if is_word && !others.contains(&text.to_lowercase().as_str()) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
