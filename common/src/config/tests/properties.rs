//! Any text at all.

use proptest::prelude::*;

use super::*;

/// TOML that is nearly right: known and unknown keys with values of every type.
fn nearly_right() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        (0..KEYS.len()).prop_map(|index| KEYS[index].path.to_owned()),
        "[a-z]{1,8}(\\.[a-z0-9]{1,8}){0,2}",
    ];
    let value = prop_oneof![
        "\"[ -!#-\\[\\]-~]{0,20}\"",
        "-?[0-9]{1,22}",
        Just("true".to_owned()),
        Just("1.5".to_owned()),
        Just("2026-11-21".to_owned()),
        Just("[1, \"a\", { key = 1, roles = [\"wal\"] }]".to_owned()),
        Just("{ name = \"a\", url = 1 }".to_owned()),
        Just("[{ name = \"a\", database = \"b\", sql = \"c\", expect = 1 }]".to_owned()),
    ];
    prop::collection::vec((key, value), 0..6)
        .prop_map(|pairs| pairs.iter().map(|(key, value)| format!("{key} = {value}\n")).collect())
}

proptest! {
    #[test]
    fn no_text_makes_the_configuration_panic(text: String) {
        let read = Config::from_toml(&text);
        prop_assert!(read.is_ok() || !read.unwrap_err().to_string().is_empty());
    }

    #[test]
    fn nearly_right_toml_is_read_or_complained_about_with_a_fix(text in nearly_right()) {
        if let Err(error) = Config::from_toml(&text) {
            prop_assert!(!error.fix().is_empty());
            prop_assert!(error.to_string().contains("/walseal.toml:") || error.to_string().contains("line"), "{}", error);
        }
    }

    #[test]
    fn no_variable_makes_the_configuration_panic(index in 0..KEYS.len(), value: String) {
        let read = from_environment(&[(&KEYS[index].variable(), &value)]);
        prop_assert!(read.is_ok() || !read.unwrap_err().to_string().is_empty());
    }
}
