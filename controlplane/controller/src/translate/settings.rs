//! What a listener does: mode, affinity, policies and whom it lets in, as far as an L4Policy or GatewayParameters says.

use std::net::IpAddr;
use std::sync::Arc;

use penstock_feed::model::{
    Affinity, Mode, MssClamp, OnExhaustion, OnRemoval, OnUnknown, Policies, Prefix, Silence,
    SourceRanges, Timeouts,
};
use penstock_gateway_types::l4_policy::{
    AffinityPolicy, FlowTimeouts, ListenerPolicy, MssClampPolicy, RemovalPolicy,
};
use penstock_gateway_types::value::{
    self, AffinityBy, ForwardingMode, MssClampAction, RemovalAction,
};

use super::verdict::Refusal;

/// The grace of `expire` where none is given.
const GRACE_MS: u32 = 30_000;

/// What a listener does; what nobody said is left to who is asked next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    mode: Option<Mode>,
    affinity: Option<SourceBits>,
    on_removal: Option<OnRemoval>,
    on_exhaustion: Option<OnExhaustion>,
    on_unknown: Option<OnUnknown>,
    mss_clamp: Option<MssClamp>,
    source_ranges: Option<Arc<[Prefix]>>,
    timeouts: Timeouts,
}

impl Settings {
    /// What `policy`, the field `path`, says.
    ///
    /// # Errors
    /// `UnsupportedValue`, naming the first field that cannot be done.
    pub(super) fn read(path: &str, policy: &ListenerPolicy) -> Result<Self, Refusal> {
        unserved(path, policy)?;
        let unfit = |field: &str, what: &str| {
            Refusal::new("UnsupportedValue", format!("{path}.{field}: {what}"))
        };
        let affinity = policy.affinity.as_ref().map(|affinity| {
            let fault =
                "write by 5-tuple, or by source with prefix lengths of 1 to 32 and 1 to 128";
            SourceBits::read(affinity).ok_or_else(|| unfit("affinity", fault))
        });
        let on_removal = policy.on_removal.as_ref().map(|policy| {
            let fault = "write action keep, reset, or expire with a grace of up to a week";
            removal(policy).ok_or_else(|| unfit("onRemoval", fault))
        });
        let mss_clamp = policy.mss_clamp.as_ref().map(|policy| {
            let (least, most) = (MssClamp::LEAST_BYTES, MssClamp::MOST_BYTES);
            let fault = format!("write action auto, never, or limit with {least} to {most} bytes");
            clamp(policy).ok_or_else(|| unfit("mssClamp", &fault))
        });
        let timeouts = timeouts(&policy.timeouts)
            .map_err(|name| unfit(&format!("timeouts.{name}"), "write a second to a week"))?;
        let source_ranges = Some(&policy.source_ranges).filter(|ranges| !ranges.is_empty());
        let source_ranges = source_ranges.map(|ranges| networks(ranges));
        let mode = policy.mode.as_ref().map(ForwardingMode::as_str);
        let on_exhaustion = policy.on_exhaustion.as_ref().map(value::OnExhaustion::as_str);
        let on_unknown = policy.on_unknown.as_ref().map(value::OnUnknown::as_str);
        let exhaustion = (&OnExhaustion::ALL[..], OnExhaustion::name as fn(_) -> _);
        let unknown = (&OnUnknown::ALL[..], OnUnknown::name as fn(_) -> _);
        Ok(Self {
            mode: named(mode, (&Mode::ALL, Mode::name)).map_err(|it| unfit("mode", &it))?,
            on_exhaustion: named(on_exhaustion, exhaustion)
                .map_err(|it| unfit("onExhaustion", &it))?,
            on_unknown: named(on_unknown, unknown).map_err(|it| unfit("onUnknown", &it))?,
            affinity: affinity.transpose()?,
            on_removal: on_removal.transpose()?,
            mss_clamp: mss_clamp.transpose()?,
            source_ranges: source_ranges
                .transpose()
                .map_err(|it| unfit("sourceRanges", &it))?
                .map(Arc::from),
            timeouts,
        })
    }

    /// These, and where they say nothing, what `others` say.
    #[must_use]
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            mode: self.mode.or(others.mode),
            affinity: self.affinity.or(others.affinity),
            on_removal: self.on_removal.or(others.on_removal),
            on_exhaustion: self.on_exhaustion.or(others.on_exhaustion),
            on_unknown: self.on_unknown.or(others.on_unknown),
            mss_clamp: self.mss_clamp.or(others.mss_clamp),
            source_ranges: self.source_ranges.or(others.source_ranges),
            timeouts: self.timeouts.or(others.timeouts),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::FullNat)
    }

    pub(super) fn affinity(&self, vip: IpAddr) -> Affinity {
        self.affinity.unwrap_or_default().of(vip)
    }

    pub(super) fn policies(&self) -> Policies {
        Policies {
            on_removal: self.on_removal.unwrap_or_default(),
            on_exhaustion: self.on_exhaustion.unwrap_or_default(),
            on_unknown: self.on_unknown.unwrap_or_default(),
            mss_clamp: self.mss_clamp.unwrap_or_default(),
            timeouts: self.timeouts,
        }
    }

    /// The clients that are let in at `vip`, all if nobody says otherwise; of a list without networks of its family, none.
    pub(super) fn source_ranges(&self, vip: IpAddr) -> Option<SourceRanges> {
        let of_family = |prefix: &&Prefix| prefix.address().is_ipv4() == vip.is_ipv4();
        let ranges = self.source_ranges.as_ref()?.iter().filter(of_family).copied();
        let has_all = ranges.clone().any(|prefix| prefix.length() == 0);
        (!has_all).then(|| SourceRanges::new(ranges).unwrap_or_default()) // of so many nobody, but no more are read
    }

    /// Whether there is anyone who is not let in.
    pub(super) fn shuts_out(&self) -> bool {
        let all = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        all.into_iter().any(|any| self.source_ranges(any).is_some())
    }

    /// What the operator should know who wrote what does nothing in a mode.
    pub(super) fn in_vain(&self) -> impl Iterator<Item = String> + use<> {
        let (policies, mode) = (self.policies(), self.mode());
        let rows = [
            (
                policies.on_unknown != OnUnknown::default(),
                "onUnknown",
                "segments of connections that nobody knows go to a backend, which answers; remove it",
            ),
            (
                policies.mss_clamp != MssClamp::default(),
                "mssClamp",
                "what a client offers is about answers that go past us; give the backends' routes an MTU instead",
            ),
        ];
        let in_vain = rows.into_iter().filter(move |(written, ..)| *written && mode.is_dsr());
        in_vain.map(move |(_, field, why)| format!("{field} does nothing with mode {mode}: {why}"))
    }
}

/// What an L4Policy can say and this version cannot do.
fn unserved(path: &str, policy: &ListenerPolicy) -> Result<(), Refusal> {
    let rows = [("rateLimit", policy.rate_limit.is_some(), "let backends limit what they take")];
    let written = rows.into_iter().find(|(_, written, _)| *written);
    written.map_or(Ok(()), |(field, _, instead)| {
        let message = format!("{path}.{field} is not served by this version: remove it; {instead}");
        Err(Refusal::new("UnsupportedValue", message))
    })
}

/// The one of `all` that goes by the name that is written, if one is.
fn named<T: Copy>(
    written: Option<&str>,
    (all, name): (&[T], fn(T) -> &'static str),
) -> Result<Option<T>, String> {
    let Some(written) = written else { return Ok(None) };
    let found = all.iter().copied().find(|one| name(*one) == written);
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|one| name(*one)).collect();
        format!("{written:?} is not known: write one of {}", names.join(", "))
    })
}

/// # Errors
/// The name of one that is none, or out of bounds.
fn timeouts(written: &FlowTimeouts) -> Result<Timeouts, &'static str> {
    let FlowTimeouts {
        tcp_established,
        tcp_half_open,
        tcp_closing,
        tcp_reset,
        udp_one_way,
        udp_replied,
    } = written;
    let by_silence =
        [tcp_established, tcp_half_open, tcp_closing, tcp_reset, udp_one_way, udp_replied];
    let said = Silence::ALL.into_iter().zip(by_silence);
    let mut said = said.filter_map(|(silence, timeout)| Some((silence, timeout.as_ref()?)));
    said.try_fold(Timeouts::default(), |timeouts, (silence, timeout)| {
        let ms = timeout.get().and_then(|timeout| u32::try_from(timeout.as_millis()).ok());
        ms.and_then(|ms| timeouts.with(silence, ms)).ok_or(silence.name())
    })
}

/// The networks that are written, at most as many as a listener can have.
///
/// # Errors
/// Which of them is none, or that they are too many.
pub(super) fn networks(written: &[String]) -> Result<Vec<Prefix>, String> {
    let most = SourceRanges::MOST;
    if written.len() > most {
        let found = written.len();
        return Err(format!("{found} networks, where {most} are the most: join some of them"));
    }
    let network = |text: &String| {
        let (address, length) = text.trim().split_once('/')?;
        Prefix::new(address.parse().ok()?, length.parse().ok()?)
    };
    let all = written.iter().map(|text| {
        let fault = || format!("{text:?} is no network: write one such as 192.0.2.0/24");
        network(text).ok_or_else(fault)
    });
    all.collect()
}

/// By how many bits of the source address backends are chosen, for IPv4 and for IPv6; by the 5-tuple if none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SourceBits(Option<[u8; 2]>);

impl SourceBits {
    fn of(self, vip: IpAddr) -> Affinity {
        let bits = self.0.map(|[v4, v6]| if vip.is_ipv4() { v4 } else { v6 });
        bits.and_then(|bits| Affinity::source(bits, vip)).unwrap_or_default()
    }

    fn read(policy: &AffinityPolicy) -> Option<Self> {
        let AffinityPolicy { by, ipv4_prefix_length, ipv6_prefix_length } = policy;
        let bits = |length: &Option<i32>, most: u8| {
            let bits = u8::try_from(length.unwrap_or(most.into())).ok()?;
            (1..=most).contains(&bits).then_some(bits)
        };
        match by {
            AffinityBy::Tuple => Some(Self(None)),
            AffinityBy::Source => {
                Some(Self(Some([bits(ipv4_prefix_length, 32)?, bits(ipv6_prefix_length, 128)?])))
            }
            AffinityBy::Unknown(_) => None,
        }
    }
}

fn removal(policy: &RemovalPolicy) -> Option<OnRemoval> {
    match policy.action {
        RemovalAction::Keep => Some(OnRemoval::Keep),
        RemovalAction::Reset => Some(OnRemoval::Reset),
        RemovalAction::Expire => match &policy.grace {
            None => OnRemoval::expire(GRACE_MS),
            Some(grace) => OnRemoval::expire(u32::try_from(grace.get()?.as_millis()).ok()?),
        },
        RemovalAction::Unknown(_) => None,
    }
}

fn clamp(policy: &MssClampPolicy) -> Option<MssClamp> {
    match policy.action {
        MssClampAction::Auto => Some(MssClamp::Auto),
        MssClampAction::Never => Some(MssClamp::Off),
        MssClampAction::Limit => MssClamp::most(u16::try_from(policy.bytes?).ok()?),
        MssClampAction::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What got past every schema is met by name, and never served by halves.
    #[test]
    fn what_is_not_known_is_named() {
        let read = |text: &str| {
            let policy: ListenerPolicy = serde_json::from_str(text).unwrap();
            Settings::read("spec.listener", &policy).map_err(|refusal| refusal.message)
        };
        for (text, field) in [
            (r#"{"mode": "quic"}"#, "spec.listener.mode: \"quic\""),
            (r#"{"onExhaustion": "x"}"#, "spec.listener.onExhaustion: \"x\""),
            (r#"{"onUnknown": "x"}"#, "spec.listener.onUnknown: \"x\""),
            (r#"{"affinity": {"by": "moon"}}"#, "spec.listener.affinity: "),
            (r#"{"affinity": {"by": "source", "ipv4PrefixLength": 33}}"#, "spec.listener.affinity"),
            (r#"{"affinity": {"by": "source", "ipv6PrefixLength": -1}}"#, "spec.listener.affinity"),
            (r#"{"onRemoval": {"action": "x"}}"#, "spec.listener.onRemoval: "),
            (r#"{"onRemoval": {"action": "expire", "grace": "8d"}}"#, "spec.listener.onRemoval: "),
            (
                r#"{"onRemoval": {"action": "expire", "grace": "169h"}}"#,
                "spec.listener.onRemoval: ",
            ),
            (r#"{"onRemoval": {"action": "expire", "grace": "0s"}}"#, "spec.listener.onRemoval: "),
            (r#"{"mssClamp": {"action": "limit"}}"#, "spec.listener.mssClamp: "),
            (r#"{"mssClamp": {"action": "limit", "bytes": 535}}"#, "spec.listener.mssClamp: "),
            (r#"{"timeouts": {"tcp-reset": "999ms"}}"#, "spec.listener.timeouts.tcp-reset: "),
            (r#"{"timeouts": {"udp-one-way": "169h"}}"#, "spec.listener.timeouts.udp-one-way: "),
            (r#"{"timeouts": {"udp-replied": "soon"}}"#, "spec.listener.timeouts.udp-replied: "),
            (
                r#"{"sourceRanges": ["::/0", "192.0.2.1"]}"#,
                "spec.listener.sourceRanges: \"192.0.2.1\"",
            ),
            (
                r#"{"sourceRanges": ["192.0.2.0/33"]}"#,
                "spec.listener.sourceRanges: \"192.0.2.0/33\"",
            ),
            (r#"{"sourceRanges": ["/8"]}"#, "spec.listener.sourceRanges: \"/8\""),
            (r#"{"rateLimit": {}}"#, "spec.listener.rateLimit is not served"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.starts_with(field), "{text}: {fault}");
        }
        assert_eq!(read("{}"), Ok(Settings::default()));
        let many = serde_json::json!({"sourceRanges": vec!["10.0.0.0/8"; 257]});
        let fault = read(&many.to_string()).unwrap_err();
        assert!(fault.starts_with("spec.listener.sourceRanges: 257 networks"), "{fault}");
    }

    /// Whoever writes a list means those in it: of a family that is not in it, nobody.
    #[test]
    fn each_family_has_its_own_list() {
        let (v4, v6) = ("192.0.2.10", "2001:db8::10");
        for (written, vip, expected) in [
            ("[]", v4, None),
            (r#"["10.1.2.3/8", "198.51.100.0/24"]"#, v4, Some("10.0.0.0/8 198.51.100.0/24")),
            (r#"["10.1.2.3/8", "198.51.100.0/24"]"#, v6, Some("")),
            (r#"["0.0.0.0/0", "2001:db8::/32"]"#, v4, None),
            (r#"["0.0.0.0/0", "2001:db8::/32"]"#, v6, Some("2001:db8::/32")),
            (r#"["0.0.0.0/0", "::/0"]"#, v6, None),
        ] {
            let policy = format!(r#"{{"sourceRanges": {written}}}"#);
            let settings = Settings::read("", &serde_json::from_str(&policy).unwrap()).unwrap();
            let ranges = settings
                .source_ranges(vip.parse().unwrap())
                .map(|ranges| ranges.iter().map(|it| it.to_string()).collect::<Vec<_>>().join(" "));
            assert_eq!(ranges.as_deref(), expected, "{written} at {vip}");
        }
    }

    #[test]
    fn what_is_more_specific_goes_first_field_by_field() {
        let read = |text: &str| {
            Settings::read("", &serde_json::from_str::<ListenerPolicy>(text).unwrap()).unwrap()
        };
        let own = read(r#"{"mode": "dnat", "onUnknown": "reset"}"#);
        let gateways = read(r#"{"mode": "ipip", "onRemoval": {"action": "expire"}}"#);
        let both = own.or(gateways);
        assert_eq!(both.mode(), Mode::Dnat);
        let expected = Policies {
            on_removal: OnRemoval::Expire { grace_ms: GRACE_MS },
            on_unknown: OnUnknown::Reset,
            ..Policies::default()
        };
        assert_eq!(both.policies(), expected);
        assert_eq!(Settings::default().mode(), Mode::FullNat);
    }
}
