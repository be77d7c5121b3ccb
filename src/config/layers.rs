//! Defaults, file, environment and flags, one on top of the other.
//!
//! The layers meet as TOML tables, so that every key of [`Config`] can be set in each without being listed
//! again: `limits.send_window_max` in the file is `TRINE_LIMITS_SEND_WINDOW_MAX` in the environment. Each
//! layer is checked by itself, so that an error names the line or the variable that caused it.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;
use toml::{Table, Value};

use super::units::AutoCount;
use super::{Config, Invalid, Profile};

const PREFIX: &str = "TRINE_";
/// Variables with our prefix that are read elsewhere: the log filter.
const NOT_CONFIG: &[&str] = &["TRINE_LOG"];

/// The text of a configuration file.
#[derive(Clone, Copy, Debug)]
pub struct ConfigFile<'a> {
    /// How messages call it, usually its path.
    pub name: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// What flags set; `None` leaves the layers below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--http`.
    pub http: Option<SocketAddr>,
    /// `--cores`.
    pub cores: Option<AutoCount>,
}

/// A valid configuration, and what the operator should hear about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration in effect.
    pub config: Config,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not TOML, has an unknown key or a value of the wrong kind.
    #[error("{file}, line {line}: {message}")]
    File {
        /// Name of the file.
        file: String,
        /// Line from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A variable's value cannot be used.
    #[error("environment variable {variable}: {message}")]
    Environment {
        /// Its name.
        variable: String,
        /// What is wrong with it.
        message: String,
    },
    /// The values do not fit together or are out of range.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Puts the layers together and validates the result.
pub fn load(
    profile: Profile,
    file: Option<ConfigFile<'_>>,
    env: impl IntoIterator<Item = (String, String)>,
    overrides: Overrides,
) -> Result<Loaded, ConfigError> {
    let mut table = to_table(&Config::of(profile));
    if let Some(file) = file {
        merge(&mut table, parse_file(file)?);
    }
    let mut warnings = Vec::new();
    for (variable, value) in env {
        if !apply_variable(&mut table, &variable, &value)? {
            warnings.push(format!("{variable} is set, but no setting has that name; it is ignored"));
        }
    }
    // PANIC: the defaults, the file and each variable were read as a `Config` on their way into the table.
    let mut config: Config = table.try_into().expect("every layer was checked when it was added");
    overrides.apply(&mut config);
    config.validate()?;
    if !config.http.ip().is_loopback() {
        warnings
            .push(format!("http = {} can be reached from other machines without a password", config.http));
    }
    Ok(Loaded { config, warnings })
}

impl Overrides {
    fn apply(self, config: &mut Config) {
        let Self { data, listen, http, cores } = self;
        config.data = data.unwrap_or(std::mem::take(&mut config.data));
        config.listen = listen.unwrap_or(config.listen);
        config.http = http.unwrap_or(config.http);
        config.cores = cores.unwrap_or(config.cores);
    }
}

/// The keys of a file, after checking that they make a `Config`.
fn parse_file(file: ConfigFile<'_>) -> Result<Table, ConfigError> {
    let to_error = |error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(file.text.len()));
        let line = file.text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count() + 1;
        ConfigError::File { file: file.name.into(), line, message: error.message().into() }
    };
    toml::from_str::<Config>(file.text).map_err(to_error)?;
    toml::from_str(file.text).map_err(to_error)
}

/// Sets the key that `variable` names. False if it has our prefix but names no key.
fn apply_variable(table: &mut Table, variable: &str, text: &str) -> Result<bool, ConfigError> {
    if !variable.starts_with(PREFIX) || NOT_CONFIG.contains(&variable) {
        return Ok(true);
    }
    let error = |message| ConfigError::Environment { variable: variable.into(), message };
    let Some(path) = leaves(table).into_iter().find(|path| variable_of(path) == variable) else {
        return Ok(false);
    };
    let slot = leaf_mut(table, &path);
    *slot = match slot {
        Value::Integer(_) => match text.trim().parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => return Err(error(format!("`{text}` is no whole number"))),
        },
        _ => Value::String(text.into()),
    };
    match table.clone().try_into::<Config>() {
        Ok(_) => Ok(true),
        Err(e) => Err(error(e.message().into())),
    }
}

fn to_table(config: &Config) -> Table {
    // PANIC: see `Config::to_toml`.
    Table::try_from(config).expect("a configuration can be written as TOML")
}

/// `limits.send_window_max` is set by `TRINE_LIMITS_SEND_WINDOW_MAX`.
fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_ascii_uppercase())
}

/// Every key, with the names of its tables before it, separated by dots.
fn leaves(table: &Table) -> Vec<String> {
    let mut paths = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                paths.extend(leaves(inner).into_iter().map(|path| format!("{key}.{path}")));
            }
            _ => paths.push(key.clone()),
        }
    }
    paths
}

fn leaf_mut<'a>(table: &'a mut Table, path: &str) -> &'a mut Value {
    match path.split_once('.') {
        // PANIC: `path` comes from `leaves` of this very table.
        Some((key, rest)) => leaf_mut(table[key].as_table_mut().expect("a path leads through tables"), rest),
        None => &mut table[path],
    }
}

/// Replaces in `base` what `over` sets.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Every key of the defaults with its value as written, for the tests of the documentation.
#[cfg(test)]
pub(super) fn described(config: &Config) -> Vec<(String, String)> {
    let mut table = to_table(config);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    leaves(&table)
        .into_iter()
        .map(|path| {
            let value = text(leaf_mut(&mut table, &path));
            (path, value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Size, Span};

    fn from_file(text: &str) -> Result<Config, String> {
        load(Profile::Server, Some(ConfigFile { name: "t.toml", text }), [], Overrides::default())
            .map(|loaded| loaded.config)
            .map_err(|error| error.to_string())
    }

    fn from_env(variable: &str, value: &str) -> Result<Loaded, String> {
        load(Profile::Server, None, [(variable.into(), value.into())], Overrides::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let text = "listen = '127.0.0.1:1'\nhttp = '127.0.0.1:2'\ncores = 2\n[limits]\nsend_window_max = 7";
        let env = [("TRINE_HTTP", "127.0.0.1:3"), ("TRINE_CORES", "3")].map(|(k, v)| (k.into(), v.into()));
        let flags = Overrides { cores: Some(AutoCount::Count(4)), ..Overrides::default() };
        let file = ConfigFile { name: "t.toml", text };
        let config = load(Profile::Dev, Some(file), env, flags).unwrap().config;
        assert_eq!(config.data, PathBuf::from("trine-data"));
        assert_eq!((config.listen.port(), config.http.port(), config.cores), (1, 3, AutoCount::Count(4)));
        assert_eq!(config.limits.send_window_max, 7);
        assert_eq!(config.limits.dedup_ids_max, Config::default().limits.dedup_ids_max);
        assert_eq!(config.store.segment_bytes, Size::mib(16));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = from_file("cores = 1\n\n[limits]\nsend_widow_max = 7\n").unwrap_err();
        assert!(error.starts_with("t.toml, line 4: unknown field `send_widow_max`"), "{error}");
    }

    #[test]
    fn a_value_that_cannot_be_read_is_refused_with_its_line_and_an_example() {
        let error = from_file("[deadlines]\ntls = '5'\n").unwrap_err();
        assert!(error.starts_with("t.toml, line 2: `5` is no duration"), "{error}");
        let error = from_file("[store]\n\nmax_bytes = '1 KB'\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("64 KiB"), "{error}");
    }

    #[test]
    fn text_that_is_not_toml_is_refused_with_its_line() {
        let error = from_file("cores = 1\nlisten = = 3\n").unwrap_err();
        assert!(error.starts_with("t.toml, line 2:"), "{error}");
    }

    #[test]
    fn every_key_can_be_set_from_the_environment() {
        for (path, value) in described(&Config::default()) {
            let loaded = from_env(&variable_of(&path), &value).unwrap();
            assert_eq!(loaded.config, Config::default(), "{path}");
            assert!(loaded.warnings.is_empty(), "{path}");
        }
        let changed = from_env("TRINE_DEADLINES_LOGIN", "250 ms").unwrap().config;
        assert_eq!(changed.deadlines.login, Span::ms(250));
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_named() {
        let error = from_env("TRINE_LIMITS_SEND_WINDOW_MAX", "many").unwrap_err();
        assert_eq!(error, "environment variable TRINE_LIMITS_SEND_WINDOW_MAX: `many` is no whole number");
        let error = from_env("TRINE_LISTEN", "nowhere").unwrap_err();
        assert!(error.starts_with("environment variable TRINE_LISTEN: "), "{error}");
    }

    #[test]
    fn a_variable_that_names_no_key_is_a_warning_and_others_are_not_ours() {
        assert_eq!(from_env("TRINE_SERVICE_HOST", "10.0.0.1").unwrap().warnings.len(), 1);
        assert!(from_env("TRINE_LOG", "debug").unwrap().warnings.is_empty());
        assert!(from_env("HOME", "x").unwrap().warnings.is_empty());
    }

    #[test]
    fn http_beyond_this_machine_is_a_warning() {
        assert!(from_env("TRINE_HTTP", "0.0.0.0:8081").unwrap().warnings[0].contains("without a password"));
    }
}
