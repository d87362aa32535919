//! The documentation has what the code has.

use super::*;

/// One table of every key, as `docs/CONFIGURATION.md` must have it.
fn reference() -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut table = String::from("| key | type | default | environment | meaning |\n| --- | --- | --- | --- | --- |\n");
    for key in KEYS {
        let default = match key.fallback {
            Fallback::None => "none".to_owned(),
            Fallback::Value(text) => format!("`{text}`"),
            Fallback::Derived(text) => text.to_owned(),
        };
        let variable =
            if key.kind.fits_a_variable() { format!("`{}`", key.variable()) } else { "file only".to_owned() };
        let row =
            format!("| `{}` | {} | {default} | {variable} | {} |\n", key.path, key.kind.describe(), cell(key.meaning));
        table.push_str(&row);
    }
    table
}

#[test]
fn the_documentation_has_the_table_of_all_keys_as_the_code_has_it() {
    let document = include_str!("../../../../docs/CONFIGURATION.md");
    let table = reference();
    for row in table.lines() {
        assert!(document.contains(row), "docs/CONFIGURATION.md lacks this row:\n{row}\n\nThe whole table is:\n{table}");
    }
}

#[test]
fn the_example_of_the_documentation_is_read_without_a_warning() {
    let document = include_str!("../../../../docs/CONFIGURATION.md");
    let example = document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let config = Config::from_toml(example).expect("the example is right");
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    assert!(config.need_repository().is_ok() && config.need_trusted_writers().is_ok());
}
