//! The addresses of names: asked for again as often as their records say, within bounds. While there is no answer, the
//! last one stays in force, family by family.

mod answer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, ResolverBuilder, TokioResolver};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use crate::backoff::{Backoff, jitter};
use crate::observed::Named;
use crate::tasks::Tasks;
use answer::{Answer, merge};

/// A name is not asked for more often, whatever its records say.
const SOONEST: Duration = Duration::from_secs(5);
/// Nor more seldom.
const LATEST: Duration = Duration::from_secs(300);
/// Without an answer, it is asked for again after this, and then after ever longer.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// What a name came to.
pub(crate) type Update = (String, Named);

type Builder = ResolverBuilder<TokioRuntimeProvider>;

/// Makes resolvers as the box is configured now: of IPv4 and of IPv6 addresses.
type Configure = Arc<dyn Fn() -> Result<[TokioResolver; 2], NetError> + Send + Sync>;

/// The tasks, one a name.
pub(crate) struct Names {
    tasks: Tasks<String>,
    resolvers: Arc<Resolvers>,
    updates: UnboundedSender<Update>,
}

impl Names {
    /// Asks whom `/etc/resolv.conf` names.
    pub(crate) fn new(updates: UnboundedSender<Update>) -> Self {
        Self::with(Arc::new(|| by_family(Resolver::builder_tokio)), updates)
    }

    fn with(configure: Configure, updates: UnboundedSender<Update>) -> Self {
        let resolvers = Arc::new(Resolvers { configure, known: Mutex::default() });
        Self { tasks: Tasks::new(), resolvers, updates }
    }

    /// Whether a name is asked for.
    pub(crate) fn asks(&self, name: &str) -> bool {
        self.tasks.number(name).is_some()
    }

    /// Keeps asking for these, and no others. `known` is what each came to last.
    pub(crate) fn want(&mut self, wanted: &BTreeSet<String>, known: &BTreeMap<String, Named>) {
        self.tasks.want(wanted, |name, _| {
            let known = known.get(name).cloned().unwrap_or_default();
            let (resolvers, updates) = (Arc::clone(&self.resolvers), self.updates.clone());
            follow(name.clone(), known, resolvers, updates)
        });
    }
}

/// Two resolvers, so that each family's answer is known by itself.
fn by_family(
    builder: impl Fn() -> Result<Builder, NetError>,
) -> Result<[TokioResolver; 2], NetError> {
    let make = |strategy| {
        let mut builder = builder()?;
        let options = builder.options_mut();
        options.ip_strategy = strategy;
        options.cache_size = 0; // we ask when what we know is too old
        builder.build()
    };
    Ok([make(LookupIpStrategy::Ipv4Only)?, make(LookupIpStrategy::Ipv6Only)?])
}

/// The resolvers that all names share, made anew after trouble: the box may be configured otherwise since.
struct Resolvers {
    configure: Configure,
    known: Mutex<Option<Arc<[TokioResolver; 2]>>>,
}

impl Resolvers {
    fn get(&self) -> Result<Arc<[TokioResolver; 2]>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return Ok(Arc::clone(known));
        }
        let made = (self.configure)().map_err(|error| format!("/etc/resolv.conf: {error}"))?;
        Ok(Arc::clone(known.insert(Arc::new(made))))
    }

    fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Asks for both families. Tells also until when the answer holds, as far as it is one.
    async fn ask(&self, name: &str) -> ([Answer; 2], Option<Instant>) {
        let resolvers = match self.get() {
            Ok(resolvers) => resolvers,
            Err(fault) => return ([Answer::Fault(fault.clone()), Answer::Fault(fault)], None),
        };
        let [v4, v6] = &*resolvers;
        let (v4, v6) = tokio::join!(v4.lookup_ip(name), v6.lookup_ip(name));
        let until = [&v4, &v6].into_iter().flatten().map(LookupIp::valid_until).min();
        let answer = |found: Result<LookupIp, NetError>| match found {
            Ok(found) => Answer::Addresses(found.iter().collect()),
            Err(error) if error.is_nx_domain() => Answer::NoName,
            Err(error) if error.is_no_records_found() => Answer::NoAddress,
            Err(error) => Answer::Fault(error.to_string()),
        };
        ([answer(v4), answer(v6)], until)
    }
}

/// Asks for one name for as long as anybody listens.
async fn follow(
    name: String,
    mut known: Named,
    resolvers: Arc<Resolvers>,
    updates: UnboundedSender<Update>,
) {
    let mut backoff = Backoff::new(AGAIN, AGAIN_AT_MOST);
    let mut first = true;
    loop {
        let (answers, until) = resolvers.ask(&name).await;
        let now = merge(&known, answers);
        if now != known || std::mem::take(&mut first) {
            match &now.trouble {
                None => info!(%name, addresses = ?now.addresses, "name resolved"),
                Some(why) => warn!(%name, %why, addresses = ?now.addresses, "name not resolved"),
            }
            known = now;
            if updates.send((name.clone(), known.clone())).is_err() {
                return;
            }
        }
        let pause = match &known.trouble {
            None => {
                backoff.reset();
                let holds = until.map(|until| until.saturating_duration_since(Instant::now()));
                jitter(holds.unwrap_or(SOONEST)).clamp(SOONEST, LATEST)
            }
            Some(_) => {
                resolvers.forget();
                backoff.pause()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{IpAddr, SocketAddr};

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::rdata::{A, AAAA};
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// What a name server says of `name.example.`; nothing at all if silent.
    type Zone = Arc<Mutex<HashMap<RecordType, Result<Vec<IpAddr>, ResponseCode>>>>;

    async fn name_server(zone: Zone) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let place = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let query = asked.queries[0].clone();
                let said = zone.lock().unwrap().get(&query.query_type()).cloned();
                let Some(said) = said else { continue };
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                answer.add_query(query.clone());
                match said {
                    Ok(addresses) => answer.add_answers(addresses.into_iter().map(|address| {
                        let data = match address {
                            IpAddr::V4(v4) => RData::A(A(v4)),
                            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
                        };
                        Record::from_rdata(query.name().clone(), 1, data)
                    })),
                    Err(code) => {
                        answer.metadata.response_code = code;
                        &mut answer
                    }
                };
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        place
    }

    fn asking(place: SocketAddr) -> Configure {
        Arc::new(move || {
            by_family(|| {
                let mut connection = ConnectionConfig::udp();
                connection.port = place.port();
                let server = NameServerConfig::new(place.ip(), true, vec![connection]);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                let mut builder =
                    Resolver::builder_with_config(config, TokioRuntimeProvider::default());
                builder.options_mut().timeout = Duration::from_millis(200);
                builder.options_mut().attempts = 1;
                Ok(builder)
            })
        })
    }

    #[tokio::test]
    async fn a_name_is_asked_for_again_and_its_last_answer_stays() {
        let of = |text: &str| Ok(text.split_whitespace().map(|a| a.parse().unwrap()).collect());
        let zone = Zone::default();
        let say = |v4: Option<_>, v6: Option<_>| {
            let mut zone = zone.lock().unwrap();
            zone.clear();
            zone.extend(v4.map(|said| (RecordType::A, said)));
            zone.extend(v6.map(|said| (RecordType::AAAA, said)));
        };
        say(Some(of("192.0.2.1 192.0.2.2")), Some(of("2001:db8::1")));
        let (updates_in, mut updates) = unbounded_channel();
        let mut names = Names::with(asking(name_server(Arc::clone(&zone)).await), updates_in);
        let wanted: BTreeSet<_> = ["name.example.".to_owned()].into();
        names.want(&wanted, &BTreeMap::new());
        let (name, named) = updates.recv().await.unwrap();
        assert_eq!(name, "name.example.");
        let said = |named: &Named| {
            let all: Vec<_> = named.addresses.iter().map(ToString::to_string).collect();
            (all.join(" "), named.trouble.is_some())
        };
        assert_eq!(said(&named), ("192.0.2.1 192.0.2.2 2001:db8::1".to_owned(), false));

        // Its records hold for a second, and are asked for again after five.
        say(Some(of("192.0.2.3")), Some(Err(ResponseCode::NoError)));
        let began = Instant::now();
        let (_, named) = updates.recv().await.unwrap();
        assert_eq!(said(&named), ("192.0.2.3".to_owned(), false));
        assert!(began.elapsed() > SOONEST - Duration::from_secs(1), "{:?}", began.elapsed());

        for (promise, v4) in [
            ("a name server that fails", Some(Err(ResponseCode::ServFail))),
            ("a name that is gone", Some(Err(ResponseCode::NXDomain))),
            ("silence", None),
        ] {
            say(v4.clone(), v4);
            names.want(&BTreeSet::new(), &BTreeMap::new());
            names.want(&wanted, &[("name.example.".to_owned(), named.clone())].into());
            let (_, named) = updates.recv().await.unwrap();
            assert_eq!(said(&named), ("192.0.2.3".to_owned(), true), "{promise}: {named:?}");
        }
    }
}
