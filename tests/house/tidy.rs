//! Does a function fit a screen, and a line a window?

use super::files;

const FUNCTION_LINES_MAX: usize = 75;
const COLUMNS_MAX: usize = 120;

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    // A test tells a story, which may be longer.
    let is_shipped = |path: &std::path::Path| !path.iter().any(|name| name == "tests" || name == "tests.rs");
    for (path, text) in code().into_iter().filter(|(path, _)| is_shipped(path)) {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            let indent = &line[..line.len() - line.trim_start().len()];
            // As rustfmt has it, a body ends at a brace below the `fn`; a signature without a body ends before.
            let body =
                lines[start..].iter().find(|line| line.ends_with([';', '{', '}'])).copied().unwrap_or("");
            let end = lines[start..].iter().position(|line| *line == format!("{indent}}}"));
            let Some(end) = end.filter(|_| body.ends_with('{')) else { continue };
            if end + 1 > FUNCTION_LINES_MAX {
                long.push(format!("{}:{}: {} lines", path.display(), start + 1, end + 1));
            }
        }
    }
    assert!(long.is_empty(), "functions of more than {FUNCTION_LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn comments_and_prose_fit_a_window() {
    let mut wide = Vec::new();
    let mut note = |path: &std::path::Path, number: usize, line: &str| {
        if line.chars().count() > COLUMNS_MAX {
            wide.push(format!("{}:{}: {} columns", path.display(), number + 1, line.chars().count()));
        }
    };
    for (path, text) in code() {
        let comments = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
        // A row of a table is as wide as what it says.
        let comments = comments.filter(|(_, line)| !line.contains("//! |"));
        comments.for_each(|(number, line)| note(&path, number, line));
    }
    for (path, text) in [files("*.md"), files("docs/**/*.md"), files("benches/**/*.md")].concat() {
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            // Rows of tables, code and what a program wrote keep their lines.
            if !is_code && !line.contains('|') && !line.starts_with("* Of ") {
                note(&path, number, line);
            }
        }
    }
    assert!(wide.is_empty(), "lines of more than {COLUMNS_MAX} columns:\n{}", wide.join("\n"));
}

fn code() -> Vec<(std::path::PathBuf, String)> {
    let folders = ["feature-defs", "sdk/rust", "sdk/wire", "server", "tests", "benches"];
    let found = folders.iter().flat_map(|folder| files(&format!("{folder}/**/*.rs")));
    found.filter(|(path, _)| !path.starts_with("tests/fixtures")).collect()
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || matches!(*word, "const" | "async" | "unsafe" | "extern" | "\"C\"")
    });
    words.next() == Some("fn")
}
