//! The two forms of a connection string, taken apart into keywords and values.
//!
//! Source: `conninfo_parse` and `conninfo_uri_parse_options` describe the grammar; messages here never repeat the
//! text, since any part of it may be a password whose quotes were forgotten.

use zeroize::Zeroizing;

use super::ConninfoError;

type Pair = (String, Zeroizing<String>);

/// Keywords and values in the order given; a later one replaces an earlier one.
pub(super) fn split(text: &str) -> Result<Vec<Pair>, ConninfoError> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => url(rest),
        None => keywords(text),
    }
}

fn wrong(why: impl Into<String>) -> ConninfoError {
    ConninfoError(why.into())
}

/// `keyword = value …` with `'quoted values'` and `\` before any character.
fn keywords(text: &str) -> Result<Vec<Pair>, ConninfoError> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(pairs);
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(match pairs.last() {
                Some((last, _)) => wrong(format!(
                    "the word after the value of {last} has no \"=\"; put a value with spaces in single quotes, with \\' \
                     for a quote and \\\\ for a backslash in it"
                )),
                None => wrong("it has no \"=\"; expected keyword=value pairs or postgresql://user@host/database"),
            });
        }
        if name.is_empty() {
            return Err(wrong("an \"=\" has no keyword before it"));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = Zeroizing::new(String::new());
        let quoted = chars.next_if_eq(&'\'').is_some();
        loop {
            match chars.next_if(|c| quoted || !c.is_whitespace()) {
                Some('\\') => match chars.next() {
                    Some(c) => value.push(c),
                    None if quoted => return Err(wrong(format!("the quoted value of {name} has no end"))),
                    None => break,
                },
                Some('\'') if quoted => break,
                Some(c) => value.push(c),
                None if quoted => return Err(wrong(format!("the quoted value of {name} has no end"))),
                None => break,
            }
        }
        pairs.push((name, value));
    }
}

/// `[user[:password]@][host[:port],…][/database][?keyword=value&…]`, after the scheme.
fn url(rest: &str) -> Result<Vec<Pair>, ConninfoError> {
    let mut pairs = Vec::new();
    let mut put = |name: &str, value: Zeroizing<String>| {
        if !value.is_empty() {
            pairs.push((name.to_owned(), value));
        }
    };
    let (before, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
    let (authority, database) = match before.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (before, None),
    };
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    if let Some(login) = login {
        let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        put("user", decode(user, "the user")?);
        if let Some(password) = password {
            put("password", decode(password, "the password")?);
        }
    }
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(decode(name, "a host")?.to_string());
        ports.push(decode(port, "a port")?.to_string());
    }
    if names.iter().any(|name| !name.is_empty()) {
        put("host", Zeroizing::new(names.join(",")));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        put("port", Zeroizing::new(ports.join(",")));
    }
    if let Some(database) = database {
        put("dbname", decode(database, "the database")?);
    }
    for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(wrong("a parameter after \"?\" has no \"=\""));
        };
        if value.contains('=') {
            return Err(wrong("a parameter after \"?\" has two \"=\"; write one in a value as %3D"));
        }
        let name = decode(name, "a parameter's name")?;
        let value = decode(value, "a parameter's value")?;
        match (name.as_str(), value.as_str()) {
            // For the sake of connection strings made for JDBC.
            ("ssl", "true") => put("sslmode", Zeroizing::new("require".to_owned())),
            _ => put(&name, value),
        }
    }
    Ok(pairs)
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host_and_port(host: &str) -> Result<(&str, &str), ConninfoError> {
    if let Some(inside) = host.strip_prefix('[') {
        let (address, after) = inside.split_once(']').ok_or_else(|| wrong("a host has \"[\" without \"]\""))?;
        if address.is_empty() {
            return Err(wrong("a host has nothing between \"[\" and \"]\""));
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((address, port)),
            None if after.is_empty() => Ok((address, "")),
            None => Err(wrong("after \"]\" of a host only a port may follow")),
        };
    }
    match host.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(wrong("write an IPv6 address in the URL in brackets: [::1]")),
        Some(pair) => Ok(pair),
        None => Ok((host, "")),
    }
}

/// Percent-decoding (RFC 3986, section 2.1); `%00` and what is no UTF-8 is refused.
fn decode(text: &str, what: &str) -> Result<Zeroizing<String>, ConninfoError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) if high + low > 0 => bytes.push((high * 16 + low) as u8),
            _ => return Err(wrong(format!("{what} has a \"%\" without two hexadecimal digits; write a % as %25"))),
        }
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(format!("{what} is not UTF-8")))?;
    Ok(Zeroizing::new(text.to_owned()))
}
