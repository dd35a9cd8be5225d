//! Random changes of objects: what is made of them one by one is what would be made of the whole.

mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use penstock_controlplane::manifest;
use penstock_controlplane::object::{Kind, NamespacedName, Object, ObjectKey, Objects};
use penstock_controlplane::observed::{Named, Observed};
use penstock_controlplane::translate::{
    Known, Sizes, Translation, Translator, Update, service, translate_with,
};
use penstock_feed::model::Touched;
use penstock_gateway_types::GatewayStatus;
use penstock_gateway_types::gateway::GatewayStatusAddress;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use random::{classes, fitting, object};

/// What may happen to objects.
#[derive(Clone, Debug)]
enum Event {
    /// One is made, or takes the place of the one of its name.
    Put(String),
    /// One is removed.
    Remove(Index),
    /// The status of a Gateway says that it has an address.
    Status(Index, &'static str),
    /// One is told of that did not change.
    Nothing(Index),
    /// Somebody else decided that only some listeners are to be served, or did not.
    Only(Option<Vec<&'static str>>),
    /// A backend is well no more, or again.
    Health(Index),
    /// A name comes to something, or to nothing.
    Name(Option<&'static str>),
}

fn event() -> impl Strategy<Value = Event> {
    let listeners = vec![
        "default/a/a",
        "default/a/d",
        "shop/a/a",
        "shop/a/f",
        "listenerset/default/a/a",
        "listenerset/shop/b/d",
    ];
    prop_oneof![
        16 => fitting().prop_map(Event::Put),
        2 => object().prop_map(Event::Put),
        3 => any::<Index>().prop_map(Event::Remove),
        1 => (any::<Index>(), select(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1"]))
            .prop_map(|(index, address)| Event::Status(index, address)),
        1 => any::<Index>().prop_map(Event::Nothing),
        1 => proptest::option::of(subsequence(listeners, 0..6)).prop_map(Event::Only),
        2 => any::<Index>().prop_map(Event::Health),
        1 => select(vec![None, Some("10.0.0.7"), Some("2001:db8::7")]).prop_map(Event::Name),
    ]
}

fn keys(objects: &Objects) -> Vec<ObjectKey> {
    objects.iter().map(|object| object.key()).collect()
}

/// The listeners to serve, if somebody else decided.
type Only = Option<Arc<BTreeSet<String>>>;

/// Makes an event happen. Returns the object it is about, if there is one.
fn happen(event: Event, objects: &mut Objects, only: &mut Only) -> Option<ObjectKey> {
    let known = keys(objects);
    match event {
        Event::Put(text) => {
            let object = manifest::read("in.yaml", &text).manifests.into_iter().next()?.object;
            let key = object.key();
            objects.insert(object);
            Some(key)
        }
        Event::Remove(index) => {
            let key = (!known.is_empty()).then(|| index.get(&known).clone())?;
            objects.remove(&key);
            Some(key)
        }
        Event::Status(index, address) => {
            let known: Vec<_> = known.into_iter().filter(|key| key.kind == Kind::Gateway).collect();
            let key = (!known.is_empty()).then(|| index.get(&known).clone())?;
            let Some(Object::Gateway(mut gateway)) = objects.get(&key) else { return None };
            let addresses = vec![GatewayStatusAddress { type_: None, value: address.to_owned() }];
            Arc::make_mut(&mut gateway).status =
                Some(GatewayStatus { addresses, ..GatewayStatus::default() });
            objects.insert(Object::Gateway(gateway));
            Some(key)
        }
        Event::Nothing(index) => (!known.is_empty()).then(|| index.get(&known).clone()),
        Event::Only(names) => {
            *only = names.map(|names| Arc::new(names.into_iter().map(str::to_owned).collect()));
            None
        }
        Event::Health(_) | Event::Name(_) => None, // of no object
    }
}

/// Makes the box find out what an event says.
fn find_out(event: &Event, translation: &Translation, observed: &mut Observed) {
    match event {
        Event::Health(index) => {
            let asked: Vec<_> = translation.checkups.asked().cloned().collect();
            if asked.is_empty() {
                return;
            }
            let asked = index.get(&asked);
            if !observed.unhealthy.remove(asked) {
                observed.unhealthy.insert(asked.clone());
            }
        }
        Event::Name(address) => {
            let addresses = address.iter().map(|address| address.parse().unwrap()).collect();
            let named = Named { addresses, trouble: address.is_none().then(|| "gone".to_owned()) };
            observed.names.insert("db.example.com".to_owned(), named);
        }
        _ => {}
    }
}

/// The keys of what is another in both.
fn differing<K: Ord + Clone, V: PartialEq>(
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) -> BTreeSet<K> {
    let keys = one.keys().chain(other.keys());
    keys.filter(|key| one.get(key) != other.get(key)).cloned().collect()
}

/// What an update should say of two translations.
fn difference(before: &Translation, now: &Translation) -> Update {
    let named = |kind: Kind, names: BTreeSet<NamespacedName>| -> BTreeSet<ObjectKey> {
        names.iter().map(|name| ObjectKey::of(kind, name)).collect()
    };
    let mut answers = differing(&before.routes, &now.routes);
    answers.extend(named(Kind::Gateway, differing(&before.gateways, &now.gateways)));
    let sets = differing(&before.listener_sets, &now.listener_sets);
    answers.extend(named(Kind::ListenerSet, sets));
    answers.extend(named(Kind::BackendTlsPolicy, differing(&before.policies, &now.policies)));
    let classes = differing(&before.classes, &now.classes);
    answers.extend(classes.iter().map(|name| ObjectKey::cluster(Kind::GatewayClass, name)));
    answers.extend(named(Kind::L4Policy, differing(&before.l4_policies, &now.l4_policies)));
    answers.extend(named(Kind::Backend, differing(&before.backends, &now.backends)));
    let touched = Touched::between(&before.state, &now.state);
    let places = before.l7.places.keys().chain(now.l7.places.keys());
    let others = |place: &&SocketAddr| before.l7.places.get(place) != now.l7.places.get(place);
    let l7_places = places.filter(others).copied().collect();
    let infrastructure = differing(&before.infrastructure, &now.infrastructure);
    let has_notes = before.notes != now.notes;
    let has_questions = !before.checkups.asked().eq(now.checkups.asked())
        || !before.names.keys().eq(now.names.keys());
    Update { answers, touched, l7_places, infrastructure, has_notes, has_questions }
}

/// Lets all of it happen, and compares.
fn agree(changes: Vec<Vec<Event>>, most: Option<Sizes>) -> Result<(), TestCaseError> {
    let mut objects: Objects = classes()
        .iter()
        .flat_map(|text| manifest::read("in.yaml", text).manifests)
        .map(|manifest| manifest.object)
        .collect();
    let known = Known { most, ..Known::default() };
    let mut translator = Translator::new(known);
    let mut changed: BTreeSet<ObjectKey> = keys(&objects).into_iter().collect();
    let mut only = Only::None;
    let mut observed = Arc::new(Observed::default());
    for events in changes {
        for event in events {
            find_out(&event, translator.translation(), Arc::make_mut(&mut observed));
            let Some(key) = happen(event, &mut objects, &mut only) else { continue };
            if key.kind == Kind::Service {
                changed.extend(service::follow(&mut objects, &key.namespaced()));
            }
            changed.insert(key);
        }
        translator.observe(&observed);
        translator.serve_only(only.clone());
        let before = translator.translation().clone();
        let update = translator.update(&objects, &std::mem::take(&mut changed));
        let now = translator.translation();
        let (held, observed) = (Some(&before.addresses), Some(&observed));
        let whole =
            translate_with(&objects, Known { held, observed, only: only.as_ref(), ..known });
        prop_assert_eq!(now, &whole);
        prop_assert_eq!(now.state.check(), []);
        let expected = difference(&before, now);
        prop_assert_eq!(&update.answers, &expected.answers);
        prop_assert_eq!(&update.touched, &expected.touched);
        prop_assert_eq!(&update.l7_places, &expected.l7_places);
        prop_assert_eq!(&update.infrastructure, &expected.infrastructure);
        prop_assert!(update.has_notes || !expected.has_notes);
        prop_assert!(update.has_questions || !expected.has_questions);
        prop_assert_eq!(Arc::ptr_eq(&before.state, &now.state), before.state == now.state);
        prop_assert_eq!(Arc::ptr_eq(&before.l7, &now.l7), before.l7 == now.l7);
    }
    Ok(())
}

/// Enough for every run; `PROPTEST_CASES` asks for more.
fn cases() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").map(|_| ProptestConfig::default().cases);
    ProptestConfig::with_cases(asked.unwrap_or(128))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_change_comes_to_what_the_whole_does(
        start in vec(event(), 24..64), changes in vec(vec(event(), 1..4), 1..24)
    ) {
        agree([vec![start], changes].concat(), None)?;
    }

    /// Where there is not room for all.
    #[test]
    fn a_change_comes_to_what_the_whole_does_in_a_crowd(
        start in vec(event(), 24..64), changes in vec(vec(event(), 1..4), 1..24),
        most in (0..4_usize, 0..4_usize, 0..4_usize, 0..3_usize)
    ) {
        let (listeners, groups, members, l7_listeners) = most;
        let most = Sizes { listeners, groups, members, l7_listeners };
        agree([vec![start], changes].concat(), Some(most))?;
    }
}
