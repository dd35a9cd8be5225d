//! How a backend is asked if it is well, in the form in which it is done.

use std::fmt;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use penstock_gateway_types::l4_policy::{HealthCheck, HttpCheck, UdpCheck};
use penstock_gateway_types::value::Scheme;
use serde::{Deserialize, Serialize};

/// The time from one question to the next, where nobody says.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer may take, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(2);
const RISE: u8 = 2;
const FALL: u8 = 3;
const FAIL_OPEN_ABOVE_PERCENT: u8 = 50;

/// A health check. Two that are equal ask the same, so that a backend is asked once for both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Check {
    /// What is asked.
    pub question: Question,
    /// The port that is asked; the backend's own if none.
    pub port: Option<u16>,
    /// The time from one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many good answers in a row bring a backend back.
    pub rise: u8,
    /// So many bad answers in a row take it out.
    pub fall: u8,
    /// When more of 100 backends than this are not well, all serve.
    pub fail_open_above_percent: u8,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Question {
    /// Is a TCP connection accepted?
    Tcp,
    /// Is a GET request answered by one of these statuses?
    Http {
        /// Whether it is asked in TLS.
        tls: bool,
        /// The path and query.
        path: String,
        /// The Host; the backend's address if none.
        host: Option<String>,
        /// Any of 200 to 299 if empty.
        statuses: Vec<u16>,
    },
    /// Is a datagram answered by one that begins like this?
    Udp {
        /// What is sent.
        payload: Vec<u8>,
        /// What the answer begins with.
        answer: Vec<u8>,
    },
}

/// `tcp every 5s`.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.question {
            Question::Tcp => f.write_str("tcp")?,
            Question::Http { tls: false, path, .. } => write!(f, "http {path}")?,
            Question::Http { tls: true, path, .. } => write!(f, "https {path}")?,
            Question::Udp { .. } => f.write_str("udp")?,
        }
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        write!(f, " every {}", humantime::format_duration(self.interval))
    }
}

impl Check {
    /// What `check`, the field `path`, asks.
    ///
    /// # Errors
    /// The field that cannot be done, and why: what got past the schema.
    pub fn read(path: &str, check: &HealthCheck) -> Result<Self, String> {
        let question = match (&check.tcp, &check.http, &check.udp) {
            (Some(_), None, None) => Question::Tcp,
            (None, Some(http), None) => asked_by_http(http)
                .ok_or_else(|| format!("{path}.http: its scheme or a status is not known"))?,
            (None, None, Some(udp)) => asked_by_udp(udp)
                .ok_or_else(|| format!("{path}.udp: it does not say what to send"))?,
            _ => return Err(format!("{path}: exactly one of tcp, http and udp belongs here")),
        };
        let number = |field: &str, value: Option<i32>, least: u8, usual: u8| match value {
            None => Ok(usual),
            Some(value) => u8::try_from(value)
                .ok()
                .filter(|value| (least..=100).contains(value))
                .ok_or_else(|| format!("{path}.{field}: {value} is not within {least} to 100")),
        };
        let no_duration = |field: &str| format!("{path}.{field}: write a duration, such as 5s");
        let interval =
            check.interval.as_ref().map(|d| d.get().ok_or_else(|| no_duration("interval")));
        let interval = interval.transpose()?.unwrap_or(INTERVAL);
        let timeout = check.timeout.as_ref().map(|d| d.get().ok_or_else(|| no_duration("timeout")));
        let timeout = timeout.transpose()?.unwrap_or(TIMEOUT.min(interval));
        if interval.is_zero() || timeout.is_zero() || timeout > interval {
            return Err(format!(
                "{path}.timeout: it must be above zero, and no longer than interval"
            ));
        }
        let port = check.port.map(|port| {
            let known = u16::try_from(port).ok().filter(|port| *port > 0);
            known.ok_or_else(|| format!("{path}.port: {port} is not within 1 to 65535"))
        });
        Ok(Self {
            question,
            port: port.transpose()?,
            interval,
            timeout,
            rise: number("rise", check.rise, 1, RISE)?,
            fall: number("fall", check.fall, 1, FALL)?,
            fail_open_above_percent: number(
                "failOpenAbovePercent",
                check.fail_open_above_percent,
                0,
                FAIL_OPEN_ABOVE_PERCENT,
            )?,
        })
    }
}

fn asked_by_http(check: &HttpCheck) -> Option<Question> {
    let tls = match &check.scheme {
        None | Some(Scheme::Http) => false,
        Some(Scheme::Https) => true,
        Some(Scheme::Unknown(_)) => return None,
    };
    let statuses = check.expected_statuses.iter().map(|status| u16::try_from(*status).ok());
    Some(Question::Http {
        tls,
        path: check.path.clone().unwrap_or_else(|| "/".to_owned()),
        host: check.host.clone(),
        statuses: statuses.collect::<Option<_>>()?,
    })
}

fn asked_by_udp(check: &UdpCheck) -> Option<Question> {
    let bytes = |text: &Option<String>, hex: &Option<String>| match (text, hex) {
        (Some(text), None) => Some(text.clone().into_bytes()),
        (None, Some(hex)) => HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok(),
        (None, None) => Some(Vec::new()),
        (Some(_), Some(_)) => None,
    };
    let payload = bytes(&check.send, &check.send_hex).filter(|payload| !payload.is_empty())?;
    Some(Question::Udp { payload, answer: bytes(&check.expect, &check.expect_hex)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Check, String> {
        Check::read("it", &serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_is_not_said_is_usual() {
        let check = read(r#"{"tcp": {}}"#).unwrap();
        assert_eq!(check.to_string(), "tcp every 5s");
        assert_eq!((check.rise, check.fall, check.fail_open_above_percent), (2, 3, 50));
        assert_eq!(check.timeout, TIMEOUT);
        let check =
            read(r#"{"http": {"scheme": "HTTPS", "path": "/x"}, "interval": "1s", "port": 8443}"#);
        let check = check.unwrap();
        assert_eq!(check.to_string(), "https /x port 8443 every 1s");
        assert_eq!(check.timeout, Duration::from_secs(1), "no longer than the interval");
        let check = read(r#"{"udp": {"sendHex": "00fF", "expect": "pong"}}"#).unwrap();
        let expected = Question::Udp { payload: vec![0, 255], answer: b"pong".to_vec() };
        assert_eq!(check.question, expected);
    }

    #[test]
    fn what_got_past_the_schema_is_named() {
        for (text, field) in [
            ("{}", "it: exactly one"),
            (r#"{"tcp": {}, "udp": {}}"#, "it: exactly one"),
            (r#"{"http": {"scheme": "QUIC"}}"#, "it.http"),
            (r#"{"http": {"expectedStatuses": [-1]}}"#, "it.http"),
            (r#"{"udp": {}}"#, "it.udp"),
            (r#"{"udp": {"sendHex": "0"}}"#, "it.udp"),
            (r#"{"udp": {"sendHex": "0g"}}"#, "it.udp"),
            (r#"{"tcp": {}, "rise": 0}"#, "it.rise: 0"),
            (r#"{"tcp": {}, "fall": 300}"#, "it.fall: 300"),
            (r#"{"tcp": {}, "failOpenAbovePercent": 101}"#, "it.failOpenAbovePercent: 101"),
            (r#"{"tcp": {}, "interval": "soon"}"#, "it.interval"),
            (r#"{"tcp": {}, "interval": "1s", "timeout": "2s"}"#, "it.timeout"),
            (r#"{"tcp": {}, "interval": "0s"}"#, "it.timeout"),
            (r#"{"tcp": {}, "port": 65536}"#, "it.port: 65536"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.starts_with(field), "{text}: {fault}");
        }
    }
}
