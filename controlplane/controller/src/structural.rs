//! Whether a value fits a structural schema, as an API server would judge: what CRDs of ours say of types, lengths,
//! ranges, patterns, enumerations, and their CEL rules, which are evaluated here by the same text.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cel::{Context, Env, Program, extensions};
use serde_json::Value;

use crate::schema::Violation;

/// Judges `value`, the field `path`, by `schema`.
///
/// # Errors
/// The first violation, in the order of the schema's words, then of its fields.
pub(crate) fn check(path: &str, value: &Value, schema: &Value) -> Result<(), Violation> {
    let fault = match value {
        Value::String(text) => text_fault(text, schema),
        Value::Number(number) => number_fault(number.as_f64().unwrap_or(f64::NAN), schema),
        Value::Array(items) => count_fault("entries", items.len(), "Items", schema),
        Value::Object(fields) => count_fault("fields", fields.len(), "Properties", schema),
        _ => None,
    };
    if let Some(message) = fault {
        return Err(Violation { path: path.to_owned(), message });
    }
    for below in parts(path, value, schema) {
        let (path, value, schema) = below;
        check(&path, value, schema)?;
    }
    rules(path, value, schema)
}

/// The fields or items of a value, with their schemas.
fn parts<'a>(
    path: &str,
    value: &'a Value,
    schema: &'a Value,
) -> Vec<(String, &'a Value, &'a Value)> {
    match value {
        Value::Object(fields) => {
            let other = schema.get("additionalProperties");
            let part = |(name, value)| {
                let schema = schema.get("properties").and_then(|p| p.get(name)).or(other)?;
                Some((format!("{path}.{name}"), value, schema))
            };
            fields.iter().filter_map(part).collect()
        }
        Value::Array(items) => {
            let schema = schema.get("items");
            let part = |(index, value)| Some((format!("{path}[{index}]"), value, schema?));
            items.iter().enumerate().filter_map(part).collect()
        }
        _ => Vec::new(),
    }
}

fn text_fault(text: &str, schema: &Value) -> Option<String> {
    if let Some(Value::Array(known)) = schema.get("enum")
        && !known.iter().any(|known| known == text)
    {
        let known: Vec<_> = known.iter().filter_map(Value::as_str).collect();
        return Some(format!("{text:?} is not known: write one of {}", known.join(", ")));
    }
    if let Some(fault) = count_fault("characters", text.chars().count(), "Length", schema) {
        return Some(fault);
    }
    let pattern = schema.get("pattern").and_then(Value::as_str)?;
    (!matches(text, pattern)).then(|| format!("{text:?} does not fit {pattern}"))
}

fn number_fault(number: f64, schema: &Value) -> Option<String> {
    let bound = |word| schema.get(word).and_then(Value::as_f64);
    let (least, most) = (bound("minimum"), bound("maximum"));
    let outside =
        least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most);
    outside.then(|| match (least, most) {
        (Some(least), Some(most)) => format!("{number} is not within {least} to {most}"),
        (Some(least), None) => format!("{number} is below {least}"),
        (_, most) => format!("{number} is above {}", most.unwrap_or_default()),
    })
}

/// `minItems`, `maxLength` and their like.
fn count_fault(what: &str, count: usize, of: &str, schema: &Value) -> Option<String> {
    let bound = |word: &str| schema.get(format!("{word}{of}")).and_then(Value::as_u64);
    let count = count as u64;
    if let Some(least) = bound("min").filter(|least| count < *least) {
        return Some(format!("it has {count} {what}: at least {least} belong here"));
    }
    let most = bound("max").filter(|most| count > *most)?;
    Some(format!("it has {count} {what}: at most {most} are allowed"))
}

/// Whether `text` matches a pattern of ours, by CEL's own function: one library knows regular expressions.
fn matches(text: &str, pattern: &str) -> bool {
    let program = program("self.matches(pattern)");
    let mut context = context();
    context.add_variable_from_value("pattern", pattern.to_owned());
    holds(program.as_deref(), &mut context, &Value::from(text)) == Ok(true)
}

/// The CEL rules of a schema.
fn rules(path: &str, value: &Value, schema: &Value) -> Result<(), Violation> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    for rule in rules.into_iter().flatten() {
        let text = |word| rule.get(word).and_then(Value::as_str).unwrap_or_default();
        let fault = match holds(program(text("rule")).as_deref(), &mut context(), value) {
            Ok(true) => continue,
            Ok(false) if value.is_string() => format!("{value} {}", text("message")),
            Ok(false) => text("message").to_owned(),
            Err(fault) => format!("rule {}: {fault}", text("rule")),
        };
        return Err(Violation { path: path.to_owned(), message: fault });
    }
    Ok(())
}

fn holds(
    program: Result<&Program, &String>,
    context: &mut Context<'_, '_>,
    value: &Value,
) -> Result<bool, String> {
    let program = program.map_err(Clone::clone)?;
    let value = cel::to_value(value).map_err(|error| error.to_string())?;
    context.add_variable_from_value("self", value);
    match program.execute(context) {
        Ok(cel::Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(format!("it is no condition but {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// The functions of Kubernetes' CEL that our rules use, beside the language's own.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // It would fail if the language had functions of these names; `every_rule_and_pattern_can_be_evaluated` would see it.
    let _ = extensions::strings(&mut env);
    Arc::new(env)
});

fn context() -> Context<'static, 'static> {
    let mut context = Context::with_env(Arc::clone(&FUNCTIONS));
    let is_ip = |text: Arc<String>| text.parse::<IpAddr>().is_ok();
    let _ = context.add_function("isIP", is_ip);
    let _ = context.add_function("isCIDR", |text: Arc<String>| is_network(&text));
    context
}

/// Go's `netip.ParsePrefix`: an address, a slash and a number without signs and leading zeros.
fn is_network(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let plain = bits == "0" || !bits.starts_with('0');
    plain && bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse().is_ok_and(|b: u8| b <= most)
}

type Compiled = Arc<Result<Program, String>>;

/// A rule, compiled once.
fn program(rule: &str) -> ProgramRef {
    static PROGRAMS: Mutex<BTreeMap<String, Compiled>> = Mutex::new(BTreeMap::new());
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let compile = || Arc::new(FUNCTIONS.compile(rule).map_err(|error| error.to_string()));
    ProgramRef(Arc::clone(programs.entry(rule.to_owned()).or_insert_with(compile)))
}

/// A compiled rule, or why it is none.
struct ProgramRef(Compiled);

impl ProgramRef {
    fn as_deref(&self) -> Result<&Program, &String> {
        self.0.as_ref().as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;

    fn texts(schema: &Value, word: &str, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(text) if name == word => found.push(text.to_owned()),
                        _ => texts(value, word, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| texts(item, word, found)),
            _ => {}
        }
    }

    #[test]
    fn every_rule_and_pattern_can_be_evaluated() {
        let (mut rules, mut patterns) = (Vec::new(), Vec::new());
        for (_, definition) in crd::all() {
            texts(&definition, "rule", &mut rules);
            texts(&definition, "pattern", &mut patterns);
        }
        assert!(rules.len() > 10 && patterns.len() > 5, "{rules:?} {patterns:?}");
        for rule in rules {
            assert!(program(&rule).as_deref().is_ok(), "{rule}");
        }
        for pattern in patterns {
            let program = program("self.matches(pattern)");
            let mut context = context();
            context.add_variable_from_value("pattern", pattern.clone());
            let found = holds(program.as_deref(), &mut context, &Value::from("text"));
            assert!(found.is_ok(), "{pattern}: {found:?}");
        }
        let used = "isIP('::1') && isCIDR('10.0.0.0/8') && 'a-b'.split('-').size() == 2 \
            && duration('1h') > duration('500ms')";
        assert_eq!(holds(program(used).as_deref(), &mut context(), &Value::Null), Ok(true));
    }

    #[test]
    fn a_network_is_what_go_takes_for_one() {
        for (text, expected) in [
            ("10.0.0.0/8", true),
            ("10.0.0.1/0", true),
            ("2001:db8::/32", true),
            ("10.0.0.0/33", false),
            ("10.0.0.0/08", false),
            ("10.0.0.0/+8", false),
            ("10.0.0.0/", false),
            ("10.0.0.0", false),
            ("2001:db8::/129", false),
        ] {
            assert_eq!(is_network(text), expected, "{text}");
        }
    }
}
