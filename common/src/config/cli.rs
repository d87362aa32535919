//! The flags that every verb of both programs has.

use std::path::PathBuf;

use super::environment::Environment;
use super::{Config, ConfigError, Sources};

/// Flags that may stand before or after the verb. To be flattened into a program's arguments.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct GlobalArgs {
    /// Configuration file [default: WALSEAL_CONFIG, else /etc/walseal/walseal.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

impl GlobalArgs {
    /// Where the configuration comes from for this process. A verb adds its own flags with [`Sources::flag`].
    pub fn sources(&self) -> Result<Sources, ConfigError> {
        let mut sources = Sources::new(Environment::of_this_process()?);
        sources.config_flag = self.config.clone();
        Ok(sources)
    }

    /// The configuration of this process, without flags of the verb.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.sources()?)
    }
}

/// How log lines look.
#[derive(clap::ValueEnum, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        global: GlobalArgs,
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(Subcommand)]
    enum Verb {
        Status,
    }

    #[test]
    fn the_configuration_file_may_be_named_before_or_after_the_verb() {
        for arguments in [["walseal", "--config", "/x.toml", "status"], ["walseal", "status", "--config", "/x.toml"]] {
            let program = Program::try_parse_from(arguments).expect("both orders");
            assert_eq!(program.global.config, Some(PathBuf::from("/x.toml")));
            assert!(matches!(program.verb, Verb::Status));
        }
        let json = Program::try_parse_from(["walseal", "status", "--log-format", "json"]).expect("a format");
        assert_eq!(json.global.log_format, LogFormat::Json);
    }
}
