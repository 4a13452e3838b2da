//! Which tags a content has.
//!
//! This is the seam for the catalogue: whoever asks for the tags of a content asks here, and today they come from the
//! section `[tags]` of the configuration.

use std::collections::{BTreeMap, HashSet};

/// The tags of contents.
#[derive(Clone, Debug, Default)]
pub(super) struct Tags(Vec<(String, Contents)>);

/// A set of contents: some by name, some by how their names begin.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    names: HashSet<String>,
    beginnings: Vec<String>,
}

impl Tags {
    /// The tags of a configuration.
    pub(super) fn new(tags: &BTreeMap<String, Vec<String>>) -> Self {
        let tag = |(tag, patterns): (&String, &Vec<String>)| (tag.clone(), Contents::new(patterns));
        Self(tags.iter().map(tag).collect())
    }

    /// The tags of a content, in the order of their names.
    pub(super) fn of<'a>(&'a self, content: &'a str) -> impl Iterator<Item = &'a str> {
        let has = move |(_, contents): &&(String, Contents)| contents.has(content);
        self.0.iter().filter(has).map(|(tag, _)| tag.as_str())
    }
}

impl Contents {
    pub(super) fn new(patterns: &[String]) -> Self {
        let mut contents = Self::default();
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some(beginning) => contents.beginnings.push(beginning.to_owned()),
                None => {
                    contents.names.insert(pattern.clone());
                }
            }
        }
        contents
    }

    pub(super) fn has(&self, content: &str) -> bool {
        let begins = |beginning: &String| content.starts_with(beginning.as_str());
        self.names.contains(content) || self.beginnings.iter().any(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_has_the_tags_that_name_it_or_how_it_begins() {
        let list = |patterns: &[&str]| patterns.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let table = BTreeMap::from([
            ("sports".to_owned(), list(&["match-*", "m7"])),
            ("live".to_owned(), list(&["match-1"])),
            ("all".to_owned(), list(&["*"])),
        ]);
        let tags = Tags::new(&table);
        assert_eq!(tags.of("match-1").collect::<Vec<_>>(), ["all", "live", "sports"]);
        assert_eq!(tags.of("m7").collect::<Vec<_>>(), ["all", "sports"]);
        assert_eq!(tags.of("m77").collect::<Vec<_>>(), ["all"]);
        assert_eq!(Tags::default().of("m7").count(), 0);
    }
}
