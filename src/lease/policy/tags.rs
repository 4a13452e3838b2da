//! Which tags a content has: those of the section `[tags]` of the configuration, and those that the catalogue gives it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::super::shelf::Shelf;

/// The tags of contents.
#[derive(Clone, Debug, Default)]
pub(super) struct Tags {
    configured: Vec<(String, Contents)>,
    shelf: Option<Arc<dyn Shelf>>,
}

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
        Self {
            configured: tags.iter().map(tag).collect(),
            shelf: None,
        }
    }

    /// From now on also what a catalogue says.
    pub(super) fn ask(&mut self, shelf: Option<Arc<dyn Shelf>>) {
        self.shelf = shelf;
    }

    /// The tags of a tenant's content, in the order of their names. The configuration's hold for every tenant.
    pub(super) fn of(&self, tenant: &str, content: &str) -> BTreeSet<String> {
        let has = |(_, contents): &&(String, Contents)| contents.has(content);
        let configured = self.configured.iter().filter(has).map(|(tag, _)| tag.clone());
        let mut tags: BTreeSet<String> = configured.collect();
        if let Some(shelf) = &self.shelf {
            tags.extend(shelf.tags(tenant, content).iter().cloned());
        }
        tags
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
    use super::super::super::shelf::{Barred, Sight};
    use super::*;

    #[derive(Debug)]
    struct One;

    #[async_trait::async_trait]
    impl Shelf for One {
        fn enforces(&self) -> bool {
            false
        }

        fn tags(&self, tenant: &str, content: &str) -> Arc<[String]> {
            let has = (tenant, content) == ("t", "m7");
            if has {
                ["new".to_owned(), "all".to_owned()].into()
            } else {
                [].into()
            }
        }

        async fn learn(&self, _: &str, _: &str) {}

        async fn admit(&self, _: &str, _: &Sight, _: &str) -> Result<(), Barred> {
            Ok(())
        }
    }

    #[test]
    fn a_content_has_the_tags_that_name_it_or_how_it_begins() {
        let list = |patterns: &[&str]| patterns.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let table = BTreeMap::from([
            ("sports".to_owned(), list(&["match-*", "m7"])),
            ("live".to_owned(), list(&["match-1"])),
            ("all".to_owned(), list(&["*"])),
        ]);
        let mut tags = Tags::new(&table);
        let of = |tags: &Tags, tenant, content| tags.of(tenant, content).into_iter().collect::<Vec<_>>();
        assert_eq!(of(&tags, "t", "match-1"), ["all", "live", "sports"]);
        assert_eq!(of(&tags, "t", "m7"), ["all", "sports"]);
        assert_eq!(of(&tags, "t", "m77"), ["all"]);
        assert!(of(&Tags::default(), "t", "m7").is_empty());
        tags.ask(Some(Arc::new(One)));
        assert_eq!(of(&tags, "t", "m7"), ["all", "new", "sports"]);
        assert_eq!(
            of(&tags, "u", "m7"),
            ["all", "sports"],
            "another tenant's catalogue"
        );
    }
}
