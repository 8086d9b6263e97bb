//! The example is complete, the layers have their order, and errors say what to do.

use std::{collections::BTreeSet, io::Write as _, path::Path};

use toml::{Table, Value};

use super::*;

const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../skald.example.toml"));

fn load(file: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Loaded, ConfigError> {
    let mut kept = tempfile::NamedTempFile::new().unwrap();
    kept.write_all(file.as_bytes()).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(Sources { file: Some(kept.path().to_owned()), environment, flags })
}

fn config(file: &str) -> Config {
    load(file, &[], Flags::default()).unwrap().config
}

/// The error, with the file's name made the same.
fn error(file: &str, environment: &[(&str, &str)]) -> String {
    let error = load(file, environment, Flags::default()).unwrap_err();
    let path = match &error {
        ConfigError::File { path, .. } => path.display().to_string(),
        _ => "-".to_owned(),
    };
    error.to_string().replace(&path, "FILE")
}

/// All optional values given, so that their keys are seen. A new field has to be named here.
fn everything() -> Config {
    let source = || SecretSource { value: Some(Secret::new("s")), env: Some("E".into()), file: Some("f".into()) };
    let SecretSource { value, env, file } = source();
    Config {
        server: Server {
            advertised_url: Some("http://a:1".to_owned()),
            workers: Some(2),
            callback_secret: Some(source()),
            tls: Some(Tls::default()),
            ..Server::default()
        },
        access: super::Access {
            rate_limit: Some(RateLimit { per_second: 1, burst: Some(1) }),
            jwt: Some(Jwt {
                jwks_url: Some(String::new()),
                jwks_file: Some("f".into()),
                roles: BTreeMap::from([("on-call".to_owned(), crate::access::scope::Role::Operator)]),
                ..Jwt::default()
            }),
            ..super::Access::default()
        },
        retention: super::Retention { age: Some(Millis(0)), archive: Some("a".into()), ..super::Retention::default() },
        traces: super::Traces { endpoint: Some("http://a:1".to_owned()), ..super::Traces::default() },
        bus: super::Bus { url: Some(ServerUrl::new("redis://a")), ..super::Bus::default() },
        participants: BTreeMap::from([(
            "sales".to_owned(),
            Participant {
                base_url: Some(String::new()),
                base_urls: vec![String::new()],
                rate_limit: Some(RateLimit { per_second: 1, burst: Some(1) }),
                secret_header: Some(SecretHeader { name: String::new(), value, env, file }),
                signing_secrets: vec![source()],
                ..Participant::default()
            },
        )]),
        ..Config::default()
    }
}

/// Every key, dotted. How a secret is given is documented once for all, so its three ways count as one.
fn keys(value: &Value, prefix: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let way = matches!(key.as_str(), "value" | "env" | "file");
                let key = if way { "value|env|file" } else { key };
                keys(value, &format!("{prefix}.{key}"), into);
            }
        }
        _ => drop(into.insert(prefix.trim_start_matches('.').to_owned())),
    }
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    keys(value, "", &mut all);
    all
}

#[test]
fn the_example_names_every_key() {
    // A `#` with no space behind it begins a key without a default.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let documented: Value = Value::Table(uncommented.parse::<Table>().unwrap());
    let existing = Value::try_from(everything()).unwrap();
    let mut existing = keys_of(&existing);
    existing.insert("definitions.folders".to_owned());
    assert_eq!(keys_of(&documented), existing);
}

#[test]
fn the_example_shows_the_defaults() {
    let example = config(EXAMPLE);
    let base_url = Some("http://127.0.0.1:8082".to_owned());
    let sales = Participant { base_url, ..Participant::default() };
    let defaults = Config { participants: BTreeMap::from([("sales".to_owned(), sales)]), ..Config::default() };
    assert_eq!(example, defaults);
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let file = "[database]\nurl = \"sqlite:file\"\nreaders = 7\n[server]\nlisten = \"127.0.0.1:1\"\n[definitions]\nfolders = [\"file\"]";
    let environment = [("SKALD_DATABASE_URL", "sqlite:environment"), ("SKALD_SERVER__LISTEN", "127.0.0.1:2")];
    let flags = Flags {
        listen: Some("127.0.0.1:3".parse().unwrap()),
        migrate: Some(false),
        definitions: vec!["flag".into()],
        database_url: None,
        bus: Some(ServerUrl::new("redis://flag")),
        insecure: true,
    };
    let config = load(file, &environment, flags).unwrap().config;
    assert_eq!(config.database.readers, 7);
    assert_eq!(config.database.url.reveal(), "sqlite:environment");
    assert_eq!(config.server.listen.port(), 3);
    assert!(!config.database.migrate && config.access.insecure);
    assert_eq!(config.bus.url.unwrap().reveal(), "redis://flag");
    assert_eq!(config.definitions.folders, [Path::new("flag")]);
}

#[test]
fn an_environment_variable_is_text_or_a_toml_value() {
    let file = "[participants.my-shop]\nbase_url = \"http://shop\"";
    let environment = [
        ("SKALD_DATABASE_READERS", "9"),
        ("SKALD_DATABASE_MIGRATE", "false"),
        ("SKALD_DEFINITIONS_FOLDERS", "['a', 'b']"),
        ("SKALD_ENGINE_RECOVERY_RAMP", "7s"),
        ("SKALD_PARTICIPANTS__MY_SHOP__BREAKER__FAILURES", "4"),
        ("SKALD_PARTICIPANTS__MY_SHOP__SECRET_HEADER__NAME", "X-Key"),
        ("SKALD_PARTICIPANTS__MY_SHOP__SECRET_HEADER__VALUE", "12345"),
        ("SKALD_PARTICIPANTS__SALES__BASE_URL", "http://sales"),
        ("SKALD_PARTICIPANTS__SALES__RATE_LIMIT", "{ per_second = 3 }"),
        ("SKALD_CONFIG", "elsewhere.toml"),
        ("SKALD_SERVICE_HOST", "10.0.0.1"),
        ("SKALD_PORT", "tcp://10.0.0.1:80"),
        ("PATH", "/bin"),
    ];
    let Loaded { config, ignored } = load(file, &environment, Flags::default()).unwrap();
    assert_eq!(ignored, ["SKALD_PORT", "SKALD_SERVICE_HOST"]);
    assert_eq!((config.database.readers, config.database.migrate), (9, false));
    assert_eq!(config.definitions.folders, [Path::new("a"), Path::new("b")]);
    assert_eq!(config.engine.recovery_ramp, Millis(7_000));
    let shop = &config.participants["my-shop"];
    assert_eq!(shop.breaker, Breaker { failures: 4, ..Breaker::default() });
    assert_eq!(shop.secret_header.as_ref().unwrap().value, Some(Secret::new("12345")));
    assert_eq!(config.participants["sales"].rate_limit, Some(RateLimit { per_second: 3, burst: None }));
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    for (file, said) in [
        ("[database]\nurls = 'x'", "the configuration FILE, line 2, column 1: `database.urls` has a value of"),
        ("[databse]\n", "line 1, column 2: `databse` unknown field `databse`, expected one of `server`"),
        (
            "[engine]\nmax_runing = 5",
            "line 2, column 1: `engine.max_runing` unknown field `max_runing`, expected one of `max_running`",
        ),
        (
            "[engine]\nmax_running = -5",
            "line 2, column 15: `engine.max_running` invalid value: integer `-5`, expected u32",
        ),
        ("[server]\nlisten = '80'", "`server.listen` invalid socket address syntax"),
        ("[server]\nwait = '5'", "`server.wait` `5` is not a duration"),
        ("[server]\nbody_max = '5'", "`server.body_max` `5` is not a size"),
        ("[log]\nformat = 'xml'", "`log.format` unknown variant `xml`, expected `text` or `json`"),
        ("[log\n", "the configuration FILE, line 1"),
        (
            "[participants.sales.breaker]\nfailurs = 1",
            "line 2, column 1: `participants.sales.breaker.failurs` unknown field",
        ),
    ] {
        let error = error(file, &[]);
        assert!(error.contains(said), "{error}\nlacks\n{said}");
    }
    let missing = Config::load(Sources { file: Some("/no/such.toml".into()), ..Sources::default() }).unwrap_err();
    assert!(missing.to_string().starts_with("the configuration /no/such.toml cannot be read"), "{missing}");
}

#[test]
fn a_variable_that_cannot_be_used_is_named() {
    for (variable, value, said) in [
        (
            "SKALD_DATABASE_READER",
            "1",
            "the environment variable SKALD_DATABASE_READER: `database.reader` unknown field",
        ),
        ("SKALD_DATABASE_READERS", "many", "SKALD_DATABASE_READERS: `database.readers` invalid type"),
        ("SKALD_DATABASE_READERS", "-1", "SKALD_DATABASE_READERS: `database.readers` invalid value: integer `-1`"),
        ("SKALD_LOG", "info", ""),
    ] {
        match load("", &[(variable, value)], Flags::default()) {
            Err(error) => assert!(error.to_string().contains(said), "{error}\nlacks\n{said}"),
            Ok(loaded) => assert_eq!(loaded.ignored, [variable]),
        }
    }
}

#[test]
fn unusable_values_are_all_named_with_a_remedy() {
    let file = r#"
        server = { body_max = "0B", workers = 0 }
        database = { url = "mysql://u:hunter2@h/d", readers = 0, shards = 0, lease = "10ms" }
        engine = { max_running = 30000 }
        log = { level = "info,=" }
        retention = { age = "29d", streams = ["Cart"], interval = "1ms" }
        [participants.Sales]
        base_url = "http://u:hunter2@sales"
        timeout = "0s"
        [participants.a]
        [participants.b]
        base_url = "ftp://b"
        max_concurrency = 0
        rate_limit = {}
        breaker = { failures = 0, open_for = "5m" }
        secret_header = { name = "X Y", value = "hunter2" }
        [participants.c]
        base_url = "http://c?x=1"
        base_urls = ["http://c"]
        secret_header = { name = "X", value = "hunter2", env = "X" }
        [participants.d]
        base_urls = ["http://d", "d:80/"]
        secret_header = { name = "X", file = "/no/such/file" }
    "#;
    let error = error(file, &[]);
    for key in [
        "`server.body_max` is 0: give 1 to",
        "`server.workers` is 0",
        "`database.url` begins neither",
        "`database.readers` is 0",
        "`database.shards` is 0",
        "`database.lease` is 10ms: give 1s to 5m",
        "`log.level` is no filter",
        "`retention.age` is less than",
        "`retention.archive` is missing",
        "`retention.streams` names \"Cart\"",
        "`retention.interval` is 1ms",
        "`participants.Sales` is no name",
        "`participants.Sales.base_url` holds a user or password: use `secret_header`",
        "`participants.Sales.timeout` is zero",
        "`participants.a.base_url` is missing",
        "`participants.b.base_url` is neither http:// nor https://",
        "`participants.b.max_concurrency` is zero",
        "`participants.b.rate_limit.per_second` is zero",
        "`participants.b.breaker.failures` is zero",
        "`participants.b.breaker.open_for_max` is shorter",
        "`participants.b.secret_header.name` is not the name of a header",
        "`participants.c.base_url` is given beside `base_urls`",
        "`participants.c.secret_header.value` needs exactly one of",
        "`participants.d.base_urls` is neither http:// nor https://",
        "`participants.d.secret_header.file` names /no/such/file, which cannot be read",
    ] {
        assert!(error.contains(key), "{error}\nlacks\n{key}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn secrets_show_neither_in_debug_nor_in_errors_of_kind() {
    let file = r#"
        database = { url = "postgres://skald:hunter2@db/skald" }
        server = { callback_secret = { value = "hunter2" } }
        [participants.sales]
        base_url = "http://sales"
        secret_header = { name = "X-Key", value = "hunter2" }
    "#;
    let shown = format!("{:?}", config(file));
    assert!(!shown.contains("hunter2") && shown.contains("redacted"), "{shown}");
    for file in [
        "[participants.sales]\nbase_url = 'http://s'\nsecret_header = 'hunter2'",
        "[participants.sales]\nsecret_header = { name = 'X', value = ['hunter2'] }",
        "[participants.sales]\nsecret_header = { name = 'X', valeu = 'hunter2' }",
        "[participants.sales]\nbase_url = ['http://u:hunter2@s']",
        "[server]\ncallback_secret = 'hunter2'",
        "[database]\nurl = ['hunter2']",
        "[database]\nurl = 'hunter2' 'hunter2'",
    ] {
        let error = error(file, &[]);
        assert!(!error.contains("hunter2"), "{error}");
    }
    let error = error("", &[("SKALD_PARTICIPANTS__SALES__SECRET_HEADER", "hunter2")]);
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_secret_is_read_from_a_file_without_its_line_end() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hunter2\r\n").unwrap();
    let source = SecretSource { file: Some(file.path().to_owned()), ..SecretSource::default() };
    assert_eq!(source.read(), Ok(Secret::new("hunter2")));
    let header = SecretHeader { name: "X-Key".into(), value: Some(Secret::new("hunter2")), ..Default::default() };
    assert!(!format!("{:?}", header.read().unwrap()).contains("hunter2"));
    for (source, key) in [
        (SecretSource { env: Some("NO_SUCH_VARIABLE_HERE".into()), ..SecretSource::default() }, "env"),
        (SecretSource { value: Some(Secret::new("")), ..SecretSource::default() }, "value"),
        (SecretSource::default(), "value"),
    ] {
        assert_eq!(source.read().unwrap_err().0, key);
    }
}
