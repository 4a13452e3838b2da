//! Passwords that everybody tries first (NIST SP 800-63B, 5.1.1.2: common, repetitive and sequential ones).
//!
//! Owns: the list (`common.txt`, from zxcvbn) and the few rules by which such passwords are made of others.
//! Does not: measure strength, nor ask for kinds of characters.

use std::sync::LazyLock;

/// The list; its first lines say where it is from.
static LIST: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let lines = include_str!("common.txt").lines();
    lines.filter(|line| !line.starts_with('#')).collect()
});

/// What stands side by side on keyboards and in alphabets.
const ROWS: [&str; 6] = [
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1234567890",
    "0123456789",
];

/// Longest block that makes a password worthless when it is only repeated, in characters.
const SHORT_BLOCK: usize = 4;

/// Whether this is a password that others try first.
pub(super) fn is_common(password: &str) -> bool {
    let password = password.to_lowercase();
    if is_listed(&password) || is_row(&password) {
        return true;
    }
    let word = password.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '!' | '.'));
    if word.len() < password.len() && (is_listed(word) || is_row(word)) {
        return true;
    }
    repeated(&password)
        .is_some_and(|block| block.chars().count() <= SHORT_BLOCK || is_listed(block) || is_row(block))
}

fn is_listed(password: &str) -> bool {
    LIST.binary_search(&password).is_ok()
}

/// A piece of a row, forwards or backwards, from anywhere and round its end.
fn is_row(password: &str) -> bool {
    let backwards: String = password.chars().rev().collect();
    let long = password.len() >= SHORT_BLOCK;
    long && ROWS.iter().any(|row| {
        let rows = row.repeat(1 + password.len().div_ceil(row.len()));
        rows.contains(password) || rows.contains(&backwards)
    })
}

/// The shortest block that the text is repetitions of, two at least.
fn repeated(text: &str) -> Option<&str> {
    let mut ends = text.char_indices().map(|(at, _)| at).skip(1);
    ends.find(|end| {
        text.len().is_multiple_of(*end)
            && text
                .as_bytes()
                .chunks(*end)
                .all(|part| part == &text.as_bytes()[..*end])
    })
    .map(|end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_there_and_sorted() {
        assert!(LIST.len() > 20_000, "{}", LIST.len());
        assert!(LIST.is_sorted());
    }

    #[test]
    fn what_everybody_tries_is_common() {
        for password in [
            "password",
            "PassWord",
            "iloveyou",
            "password1234",
            "Password2024!",
            "123456789012",
            "qwertyuiopas",
            "zyxwvutsrqponm",
            "aaaaaaaaaaaa",
            "abcabcabcabc",
            "dragondragon",
        ] {
            assert!(is_common(password), "{password}");
        }
    }

    #[test]
    fn what_people_make_up_is_not() {
        for password in [
            "correct horse battery staple",
            "a-long-enough-one",
            "Tr0ub4dor&3-and-more",
            "the-night-was-cold",
            "käsekuchen am see",
            "s3cret-for-tests-1",
            "850317264409",
            "",
        ] {
            assert!(!is_common(password), "{password}");
        }
    }
}
