//! What those who do not belong get: at the controller's port, and at the box.

use std::cell::RefCell;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use penstock_controlplane::agent::join::join;
use penstock_controlplane::boxes::desk::{Answer, Ask};
use penstock_controlplane::link::message::{
    Delivery, Hello, Message, Reason, Report, Request, Welcome,
};
use penstock_controlplane::link::stream::{receive, send};
use penstock_controlplane::link::{Bundle, Contents, Digest, Release, frame};
use penstock_controlplane::pki::authority::{Kept, new_request};
use penstock_controlplane::pki::keeper::Record;
use penstock_controlplane::pki::{Authority, Credentials, Identity, Token, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::site::{Controller, Edge, box_object, gateway, run, until};

type Client = tokio_rustls::client::TlsStream<TcpStream>;
type Served = tokio_rustls::server::TlsStream<TcpStream>;

fn hello() -> Hello {
    Hello { release: Release::ours(), digest: None, version: 0, epoch: 0 }
}

fn credentials(authority: &Authority, believed: &Authority, identity: &Identity) -> Credentials {
    let (key, request) = new_request().unwrap();
    let now = SystemTime::now();
    Credentials {
        controllers: vec!["127.0.0.1:1".into()],
        authority: believed.pem().to_owned(),
        certificate: authority.certify(&request, identity, now, Duration::from_secs(3600)).unwrap(),
        key: key.serialize_pem().into(),
    }
}

impl Controller {
    async fn connect(&self, config: Arc<rustls::ClientConfig>) -> std::io::Result<Client> {
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(config).connect(tls::controller_name(), stream).await
    }

    /// Who has these credentials says `first`, and is answered.
    async fn say(&self, credentials: &Credentials, first: Message) -> Message {
        let mut stream = self.connect(tls::client(credentials).unwrap()).await.unwrap();
        send(&mut stream, &first).await.unwrap();
        receive(&mut stream, frame::MOST).await.unwrap()
    }

    fn authority(&self) -> Authority {
        let file = self.appliance.paths.state_dir.join("boxes/penstock-boxes");
        let record: Record = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        Authority::open(&record.authority).unwrap()
    }
}

fn reason(message: Message) -> (Reason, String) {
    match message {
        Message::Refused(refused) => (refused.reason, refused.message),
        other => panic!("not refused, but a {}", other.name()),
    }
}

#[test]
fn who_does_not_belong_is_refused_and_counted() {
    run(async {
        let controller = Controller::new(&(box_object("edge-1", "") + &gateway("web", 80)));
        controller.start();
        let edge = Edge::join(&controller, "edge-1").await;
        until("one belongs", || controller.boxes()["in_sync"] == 1).await;
        let authority = controller.authority();
        let own = Credentials::load(&edge.appliance.paths.state_dir).unwrap().unwrap();
        let identity = own.card().unwrap().identity;

        // Bytes that are no TLS.
        let mut stream = TcpStream::connect(controller.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        until("no TLS is counted", || controller.refused("tls") == 1).await;

        // A certificate of another authority: with TLS 1.3, a client learns of it with its first read.
        let foreign = Authority::open(&Kept::make(SystemTime::now()).unwrap()).unwrap();
        let config = tls::client(&credentials(&foreign, &authority, &identity)).unwrap();
        let mut stream = controller.connect(config).await.unwrap();
        assert!(receive(&mut stream, 1 << 10).await.is_err());
        until("another's is counted", || controller.refused("tls") == 2).await;

        // No certificate.
        let anonymous = tls::joining(Digest::of(authority.certificate())).unwrap();
        let mut stream = controller.connect(Arc::clone(&anonymous)).await.unwrap();
        send(&mut stream, &Message::Hello(hello())).await.unwrap();
        let (why, words) = reason(receive(&mut stream, 1 << 10).await.unwrap());
        assert_eq!(why, Reason::NoCertificate);
        assert!(words.contains("penstock join"), "{words}");

        // A frame that no stranger may send.
        let mut stream = controller.connect(anonymous).await.unwrap();
        stream.write_all(&[0, 1, 0, 1, 1]).await.unwrap();
        assert!(receive(&mut stream, 1 << 10).await.is_err(), "it is closed");
        until("it is counted", || controller.refused("protocol") == 1).await;

        let far = |release: &str| Hello { release: release.parse().unwrap(), ..hello() };
        let renew = Message::Renew(Request { request: String::new() });
        let stranger = Identity::new("edge-9", "u").unwrap();
        let old = Identity::new("edge-1", "another").unwrap();
        for (promise, who, first, expected, part) in [
            ("a far release", &identity, Message::Hello(far("0.9.0")), Reason::Version, "0.9.0"),
            (
                "and ours",
                &identity,
                Message::Hello(far("0.9.0")),
                Reason::Version,
                env!("CARGO_PKG_VERSION"),
            ),
            ("no such Box", &stranger, Message::Hello(hello()), Reason::UnknownBox, "edge-9"),
            ("one of before", &old, Message::Hello(hello()), Reason::UnknownBox, "deleted"),
            (
                "a box that obeys a later controller",
                &identity,
                Message::Hello(Hello { epoch: 1 << 60, ..hello() }),
                Reason::Epoch,
                "backup",
            ),
            ("no greeting", &identity, renew, Reason::Protocol, "Renew"),
            ("a box that plays the controller", &identity, Message::Ping, Reason::Protocol, "Ping"),
        ] {
            let credentials = credentials(&authority, &authority, who);
            let (why, words) = reason(controller.say(&credentials, first).await);
            assert_eq!(why, expected, "{promise}: {words}");
            assert!(words.contains(part), "{promise}: {words}");
        }
        let neighbour = Message::Hello(far("0.2.0"));
        let answer =
            controller.say(&credentials(&authority, &authority, &identity), neighbour).await;
        assert!(
            matches!(answer, Message::Welcome(_)),
            "one minor version apart: {}",
            answer.name()
        );
        until("all are counted", || controller.refused("version") == 2).await;
        assert_eq!(controller.refused("unknown-box"), 2);
        assert_eq!(controller.refused("epoch"), 1);
    });
}

/// Connections to the boxes' port that begin a handshake and never go on, one each 5 ms.
async fn never_finish(controller: &Controller, held: &RefCell<Vec<TcpStream>>) {
    loop {
        let mut stream = TcpStream::connect(controller.address).await.unwrap();
        stream.write_all(&[22, 3, 1, 1, 0]).await.unwrap(); // of a record of 256 bytes, the head
        held.borrow_mut().push(stream);
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn strangers_who_never_say_who_they_are_delay_no_box() {
    run(async {
        let controller = Controller::new(&(box_object("edge-1", "") + &gateway("web", 80)));
        controller.start();
        let token = controller.token("edge-1").await;
        let held = RefCell::new(Vec::new());
        let boxes = async {
            until("all places are taken", || held.borrow().len() > 100).await;
            let mut edge = Edge::strange();
            let begin = Instant::now();
            join(&token, &edge.appliance.paths.state_dir).await.unwrap();
            edge.start();
            until("it is in sync", || controller.boxes()["in_sync"] == 1).await;
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(3), "{took:?}"); // before a stranger's time is over
            until("they made room", || controller.refused("crowded-out") > 30).await;
            assert_eq!((controller.refused("busy"), controller.refused("silent")), (0, 0));
            assert!(edge.is_linked());
        };
        tokio::select! {
            () = never_finish(&controller, &held) => {}
            () = boxes => {}
        }
    });
}

#[test]
fn one_that_is_revoked_is_cut_at_once_and_stays_out() {
    run(async {
        let both = |spec: &str| box_object("edge-1", spec) + &box_object("edge-2", "");
        let controller = Controller::new(&gateway("web", 80));
        controller.write("boxes", &both(""));
        controller.start();
        let edge = Edge::join(&controller, "edge-1").await;
        let other = Edge::join(&controller, "edge-2").await;
        until("both are in sync", || controller.boxes()["in_sync"] == 2).await;

        controller.write("boxes", &both("revoked: true"));
        until("its link is cut", || !edge.is_linked() && edge.tells("revoked")).await;
        until("it is counted", || controller.refused("revoked") >= 2).await; // the link, and the next try
        assert_eq!(controller.condition("Box/edge-1", "Connected").0, "False/Revoked");
        assert_eq!(edge.plane.listeners(), 1, "it goes on");
        assert!(other.is_linked());
        until("it is no part of Programmed", || {
            controller.condition("Gateway/default/web", "Programmed").1.ends_with("on edge-2")
        })
        .await;

        controller.write("boxes", &both(""));
        until("it may come back", || edge.is_linked()).await;
        controller.write("boxes", &box_object("edge-2", ""));
        until("a Box that is deleted is none", || !edge.is_linked()).await;
        until("and says so", || edge.tells("no Box edge-1")).await;
        sleep(Duration::from_millis(1100)).await; // made in another second: another Box
        controller.write("boxes", &both(""));
        until("one that is made anew is another", || edge.tells("was deleted")).await;
        assert!(!edge.is_linked());
    });
}

#[test]
fn a_token_is_good_once_and_for_its_box() {
    run(async {
        let controller = Controller::new(&box_object("edge-1", ""));
        controller.start();
        let token = controller.token("edge-1").await;
        let authority = controller.authority();
        until("it has begun", || !controller.boxes().is_null()).await;
        let here = [controller.address.to_string()];
        let make = |authority: &Authority, name: &str, now: SystemTime| {
            Token::make(authority, name, &here, now, Duration::from_secs(60)).unwrap()
        };
        let now = SystemTime::now();
        let old = make(&authority, "edge-1", now - Duration::from_secs(120));
        let foreign = Authority::open(&Kept::make(now).unwrap()).unwrap();
        let folder = || tempfile::tempdir().unwrap();
        let first = folder();
        join(&token, first.path()).await.unwrap();
        for (promise, token, part) in [
            ("used", token.clone(), "used already"),
            ("too old", old, "too old"),
            ("of another authority", make(&foreign, "edge-1", now), "not the controller that made"),
            ("of a Box that is not there", make(&authority, "edge-2", now), "no Box edge-2"),
        ] {
            let error = join(&token, folder().path()).await.unwrap_err().to_string();
            assert!(error.contains(part), "{promise}: {error}");
        }
        let again = make(&authority, "edge-1", now);
        let error = join(&again, first.path()).await.unwrap_err().to_string();
        assert!(error.contains("joined already"), "{error}");
        join(&again, folder().path()).await.unwrap();
        until("both are counted", || controller.counted("joined") == 2).await;
        let ask = Ask::Token { name: "Edge".into(), controllers: here.to_vec(), seconds: 1 };
        assert!(matches!(controller.ask(&ask).await, Answer::Refused(_)));
    });
}

/// A controller that says what a test wants.
struct Puppet {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    edge: Edge,
}

impl Puppet {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = Authority::open(&Kept::make(SystemTime::now()).unwrap()).unwrap();
        let mut edge = Edge::strange();
        let identity = Identity::new("edge-1", "u").unwrap();
        let credentials = Credentials {
            controllers: vec![listener.local_addr().unwrap().to_string()],
            ..credentials(&authority, &authority, &identity)
        };
        credentials.save(&edge.appliance.paths.state_dir).unwrap();
        let acceptor = TlsAcceptor::from(tls::server(Arc::new(authority)).unwrap());
        edge.start();
        Self { listener, acceptor, edge }
    }

    /// The next link, and what the box says first.
    async fn accept(&self) -> (Served, Hello) {
        let next = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut stream = self.acceptor.accept(stream).await.unwrap();
            match receive(&mut stream, frame::MOST).await.unwrap() {
                Message::Hello(hello) => (stream, hello),
                other => panic!("a {}", other.name()),
            }
        };
        timeout(Duration::from_secs(20), next).await.expect("the box dials")
    }

    async fn welcome(&self, epoch: u64) -> (Served, Hello) {
        let (mut stream, hello) = self.accept().await;
        send(&mut stream, &welcome(Release::ours(), epoch)).await.unwrap();
        (stream, hello)
    }
}

fn welcome(release: Release, epoch: u64) -> Message {
    Message::Welcome(Welcome { release, controller: "puppet".into(), epoch })
}

fn bundle(version: u64, ports: &[u16]) -> Bundle {
    let text: String = ports.iter().map(|port| gateway(&format!("g{port}"), *port)).collect();
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: penstock}\n\
        spec: {controllerName: penstock.dev/gateway-controller}\n---\n";
    let read = penstock_controlplane::manifest::read("t.yaml", &format!("{class}{text}"));
    assert_eq!(read.findings, []);
    let contents = Contents {
        objects: read.manifests.into_iter().map(|m| m.object).collect(),
        listeners: ports.iter().map(|port| format!("default/g{port}/tcp")).collect(),
        unread: 0,
    };
    Bundle::pack(version, &contents.body()).unwrap()
}

/// Reports until one fits.
async fn report(stream: &mut Served, fits: impl Fn(&Report) -> bool) -> Report {
    let waiting = async {
        loop {
            match receive(stream, frame::MOST).await.unwrap() {
                Message::Report(report) if fits(&report) => return *report,
                Message::Report(_) | Message::Ping => {}
                other => panic!("a {}", other.name()),
            }
        }
    };
    timeout(Duration::from_secs(20), waiting).await.expect("such a report")
}

fn deliver(epoch: u64, bundle: &Bundle) -> Message {
    Message::Bundle(Delivery { epoch, bundle: bundle.clone() })
}

#[test]
fn a_box_takes_a_bundle_whole_or_not_at_all() {
    run(async {
        let puppet = Puppet::new().await;
        let (mut stream, hello) = puppet.welcome(5).await;
        assert_eq!((hello.digest, hello.epoch), (None, 0));
        let good = bundle(1, &[80]);
        send(&mut stream, &deliver(5, &good)).await.unwrap();
        let has = |digest: Digest| {
            move |it: &Report| it.digest == Some(digest) && it.dataplane.acknowledged
        };
        let said = report(&mut stream, has(good.digest)).await;
        assert_eq!((said.version, said.epoch, said.refused), (1, 5, None));
        assert_eq!(said.dataplane.state, puppet.edge.state().unwrap());

        let other = bundle(2, &[80, 81]);
        let half: Arc<[u8]> = other.packed[..other.packed.len() / 2].into();
        let body = String::from_utf8(other.body().unwrap()).unwrap();
        let odd =
            Bundle::pack(2, body.replacen("\"port\":80", "\"port\":\"x\"", 1).as_bytes()).unwrap();
        for (promise, bad, part) in [
            ("another digest", Bundle { digest: Digest::of(b"x"), ..other.clone() }, "damaged"),
            ("half a body", Bundle { packed: half, digest: Digest::of(b"y"), ..other.clone() }, ""),
            ("an object that is none", odd, "line "),
        ] {
            send(&mut stream, &deliver(5, &bad)).await.unwrap();
            let refused =
                |it: &Report| it.refused.as_ref().is_some_and(|it| it.digest == bad.digest);
            let said = report(&mut stream, refused).await;
            assert_eq!(said.digest, Some(good.digest), "{promise}: the last good one stays");
            let message = said.refused.unwrap().message;
            assert!(message.contains(part), "{promise}: {message}");
            assert_eq!(puppet.edge.plane.listeners(), 1, "{promise}");
        }

        // Cut in the middle: the box comes back with what it has, and takes the whole one then.
        let (kind, head, packed) = (4_u8, deliver(5, &other), other.packed.len());
        let (_, payload, _) = head.encode();
        let length = u32::try_from(1 + payload.len() + packed).unwrap().to_be_bytes();
        let begin = [&length[..], &[kind], &payload, &other.packed[..packed / 2]].concat();
        stream.write_all(&begin).await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        let (mut stream, hello) = puppet.welcome(5).await;
        assert_eq!((hello.digest, hello.version, hello.epoch), (Some(good.digest), 1, 5));
        send(&mut stream, &deliver(5, &other)).await.unwrap();
        report(&mut stream, has(other.digest)).await;
        assert_eq!(puppet.edge.plane.listeners(), 2);
    });
}

#[test]
fn a_box_obeys_no_earlier_epoch_and_no_far_release() {
    run(async {
        let mut puppet = Puppet::new().await;
        let (good, other) = (bundle(1, &[80]), bundle(2, &[80, 81]));
        let (mut stream, _) = puppet.welcome(9).await;
        send(&mut stream, &deliver(9, &good)).await.unwrap();
        report(&mut stream, |it| it.digest == Some(good.digest)).await;

        // A controller that lost the Lease and has not noticed: first on a live link, then at the door.
        send(&mut stream, &deliver(8, &other)).await.unwrap();
        while receive(&mut stream, frame::MOST).await.is_ok() {}
        until("it says why", || puppet.edge.tells("epoch 8 is before 9")).await;
        let (mut stream, hello) = puppet.welcome(8).await;
        assert_eq!(hello.epoch, 9);
        let _ = send(&mut stream, &deliver(8, &other)).await;
        while receive(&mut stream, frame::MOST).await.is_ok() {}
        puppet.edge.stop();
        puppet.edge.start();
        let (mut stream, hello) = puppet.accept().await;
        assert_eq!((hello.epoch, hello.digest), (9, Some(good.digest)), "over a restart");
        send(&mut stream, &welcome("0.7.0".parse().unwrap(), 9)).await.unwrap();
        while receive(&mut stream, frame::MOST).await.is_ok() {}
        until("it names both releases", || {
            puppet.edge.tells("0.7.0") && puppet.edge.tells(env!("CARGO_PKG_VERSION"))
        })
        .await;
        assert_eq!(puppet.edge.plane.listeners(), 1, "nothing of it came in force");
        let (mut stream, _) = puppet.welcome(10).await;
        send(&mut stream, &deliver(10, &other)).await.unwrap();
        report(&mut stream, |it| it.digest == Some(other.digest) && it.epoch == 10).await;
    });
}

#[test]
fn what_a_box_cannot_serve_is_told_by_name() {
    run(async {
        let puppet = Puppet::new().await;
        let (mut stream, _) = puppet.welcome(1).await;
        let mut contents = bundle(1, &[80]).contents().unwrap();
        contents.listeners.insert("default/later/quic".into());
        let later = Bundle::pack(1, &contents.body()).unwrap();
        send(&mut stream, &deliver(1, &later)).await.unwrap();
        let said = report(&mut stream, |it| it.dataplane.acknowledged).await;
        let names: Vec<_> = said.dataplane.faults.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["default/later/quic"]);
        contents.listeners.clear();
        let none = Bundle::pack(2, &contents.body()).unwrap();
        send(&mut stream, &deliver(1, &none)).await.unwrap();
        report(&mut stream, |it| it.digest == Some(none.digest) && it.dataplane.acknowledged).await;
        assert_eq!(puppet.edge.plane.listeners(), 0, "who serves where is decided elsewhere");
    });
}
