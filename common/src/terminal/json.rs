//! JSON for machines, with a name and a version.

use serde::Serialize;

/// Name and version of a JSON document. The version rises when a field changes its meaning or goes; new fields do not
/// raise it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schema {
    /// The document's name: `status`.
    pub name: &'static str,
    /// Its version, from 1.
    pub version: u32,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    schema: String,
    #[serde(flatten)]
    body: &'a T,
}

/// The document, indented, its first field `"schema": "walseal.status/1"`.
///
/// Errors: `body` does not serialise to an object.
pub fn to_json<T: Serialize>(schema: Schema, body: &T) -> Result<String, serde_json::Error> {
    let schema = format!("walseal.{}/{}", schema.name, schema.version);
    serde_json::to_string_pretty(&Envelope { schema, body })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::lsn::Lsn;

    #[derive(Serialize)]
    struct Body {
        frontier: Lsn,
        gaps: Vec<String>,
    }

    #[test]
    fn a_document_begins_with_its_schema() {
        let body = Body { frontier: Lsn(0x300_0060), gaps: Vec::new() };
        let text = to_json(Schema { name: "status", version: 1 }, &body).expect("an object");
        assert_snapshot!(text, @r#"
{
  "schema": "walseal.status/1",
  "frontier": "0/3000060",
  "gaps": []
}
"#);
        assert!(to_json(Schema { name: "status", version: 1 }, &1).is_err(), "a number has no room for a schema");
    }
}
