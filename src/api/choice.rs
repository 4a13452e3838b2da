//! What a list may be asked for beside its page: `sort` and `fields`.

use serde_json::Value;

use super::error::ApiError;

/// The order that `asked` names, one of `known`, and whether it is descending.
///
/// # Errors
/// 400 for another one.
pub(crate) fn sorting(asked: &str, known: &'static [&'static str]) -> Result<(&'static str, bool), ApiError> {
    let (name, descending) = asked
        .strip_prefix('-')
        .map_or((asked, false), |name| (name, true));
    let found = known.iter().find(|known| **known == name);
    found.map(|found| (*found, descending)).ok_or_else(|| {
        ApiError::bad_request(
            "sort",
            format!("sort is one of {}, with - for descending", known.join(", ")),
        )
    })
}

/// The fields that `asked` names, separated by commas, out of `known`, and the one that `always` comes; all when nothing is
/// asked.
///
/// # Errors
/// 400 for another one.
pub(crate) fn chosen(
    asked: Option<&str>,
    known: &'static [&'static str],
    always: &'static str,
) -> Result<Vec<&'static str>, ApiError> {
    let Some(asked) = asked else {
        return Ok(known.to_vec());
    };
    let named = asked
        .split(',')
        .map(|name| known.iter().find(|known| **known == name));
    let named: Option<Vec<&'static str>> = named.map(Option::<&_>::copied).collect();
    let mut fields =
        named.ok_or_else(|| ApiError::bad_request("fields", format!("fields are {}", known.join(", "))))?;
    fields.push(always);
    Ok(fields)
}

/// What of an item was chosen.
pub(crate) fn only(mut item: Value, fields: &[&str]) -> Value {
    if let Some(members) = item.as_object_mut() {
        members.retain(|name, _| fields.contains(&name.as_str()));
    }
    item
}
