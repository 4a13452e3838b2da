//! The shape of the code: rooms import only downward, files say what they are, and long ones why.

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this says why in its header ("400 lines"), or is split.
const LONG: usize = 400;

/// The rooms of the table in `src/lib.rs`, the highest first.
fn rooms() -> Vec<String> {
    let map = fs::read_to_string(source().join("lib.rs")).unwrap();
    let row = |line: &str| Some(line.strip_prefix("//! | [`")?.split_once('`')?.0.to_owned());
    map.lines().filter_map(row).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The modules that a file is in: `net/tls/tests.rs` is `net`, `tls`, `tests`.
fn modules(file: &Path) -> Vec<String> {
    let path = file.strip_prefix(source()).unwrap().with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// The names that a text looks up at the root of the crate, with their lines. `depth` is that of its module.
fn root_names(text: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Comments may point anywhere: they import nothing.
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect();
    let code = code.join("\n");
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            let names = leading_names(&code[at + "crate::".len()..]);
            found.extend(names.into_iter().map(|name| (line_of(at), name)));
        }
    }
    // As many `super::` as the module is deep lead to the root; an inline module is one deeper.
    for (at, _) in code.match_indices("super::") {
        let rest = &code[at..];
        let after = rest.trim_start_matches("super::");
        let supers = (rest.len() - after.len()) / "super::".len();
        if supers >= depth && !code[..at].ends_with("super::") {
            let names = leading_names(after);
            found.extend(names.into_iter().map(|name| (line_of(at), name)));
        }
    }
    found
}

/// `lease::model::X` is `lease`; `{auth::{A, B}, config}` is `auth` and `config`.
fn leading_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![identifier(path)];
    };
    let (mut names, mut depth, mut item) = (Vec::new(), 0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(identifier(group[item..at].trim_start()));
                item = at + 1;
                if character == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

#[test]
fn imports_go_only_downward() {
    let rooms = rooms();
    let rank = |name: &str| rooms.iter().position(|room| room == name);
    let (mut upward, mut looked_at) = (Vec::new(), 0);
    for file in files(&source()) {
        let modules = modules(&file);
        if modules == ["lib"] || modules == ["main"] {
            continue;
        }
        let own = rank(&modules[0])
            .unwrap_or_else(|| panic!("{} is in no room of the table in lib.rs", file.display()));
        for (line, name) in root_names(&fs::read_to_string(&file).unwrap(), modules.len()) {
            let Some(other) = rank(&name) else { continue };
            looked_at += 1;
            if other < own {
                upward.push(format!("{}:{line}: {} -> {name}", file.display(), modules[0]));
            }
        }
    }
    assert!(
        upward.is_empty(),
        "imports that go upward:\n{}",
        upward.join("\n")
    );
    assert!(looked_at > 100, "the imports were read: {looked_at}");
    for room in &rooms {
        let exists =
            source().join(format!("{room}.rs")).exists() || source().join(room).join("mod.rs").exists();
        assert!(exists, "{room} of the table does not exist");
    }
    assert!(rooms.len() >= 10);
}

#[test]
fn every_file_begins_by_saying_what_it_is_and_a_long_one_why_it_is_long() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let sources = files(&source());
    for file in sources.iter().chain(&files(&tests)) {
        let text = fs::read_to_string(file).unwrap();
        let header: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(
            header.first().is_some_and(|line| line.len() > "//! ".len()),
            "{} has no module doc",
            file.display()
        );
        let long = text.lines().count() > LONG && sources.contains(file);
        assert!(
            !long || header.iter().any(|line| line.contains(&format!("{LONG} lines"))),
            "{} has {} lines and its header does not say why",
            file.display(),
            text.lines().count()
        );
    }
}

/// The reader of imports itself, on every form that an import takes.
#[test]
fn every_form_of_an_import_is_read() {
    let text = "\
//! [`crate::cli`] in a comment
use crate::app::{A, B}; // crate::cli
pub use crate::{
    auth::{Claims, Scope},
    config, lease,
};
fn f(x: crate::net::X) -> mycrate::api::Y { super::super::gateway::g() }
use super::sibling;
";
    let names: Vec<_> = root_names(text, 2);
    let expected = [
        (2, "app"),
        (3, "auth"),
        (3, "config"),
        (3, "lease"),
        (7, "net"),
        (7, "gateway"),
    ];
    assert_eq!(names, expected.map(|(line, name)| (line, name.to_owned())));
}
