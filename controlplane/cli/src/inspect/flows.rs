//! `penstock flows`: the connections that the data plane has now.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use penstock_feed::Protocol;
use penstock_feed::inspect::{Answer, Ends, Flow, FlowFilter, Question};
use serde::Serialize;

use super::names::Names;
use super::{Where, ask, no_answer};
use crate::layout::{Grid, Span, Style};
use crate::output::{self, Format};

/// Lists the connections that the data plane has now, of all workers, those silent for the shortest time first.
///
/// Ends are written 203.0.113.7, 203.0.113.0/24, 203.0.113.7:4000 or [2001:db8::/32]:443. With several
/// filters, all must apply. Workers go on forwarding; a connection that begins or ends meanwhile may be missed.
/// Exit code: 0, or 1 if the data plane does not answer.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Clients.
    #[arg(long, value_name = "ENDS")]
    client: Option<Ends>,
    /// VIPs and their L4 ports.
    #[arg(long, value_name = "ENDS")]
    vip: Option<Ends>,
    /// Backends.
    #[arg(long, value_name = "ENDS")]
    backend: Option<Ends>,
    /// What backends see as source: SNAT addresses, or clients.
    #[arg(long, value_name = "ENDS")]
    outside: Option<Ends>,
    /// A listener by its name, for instance default/web/http.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// TCP or UDP.
    #[arg(long)]
    protocol: Option<Transport>,
    /// A state, for instance established or syn-sent.
    #[arg(long)]
    state: Option<String>,
    /// At most so many are listed; all that match are counted.
    #[arg(long, default_value_t = 1000)]
    limit: u64,
    /// How to write them.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    place: Where,
}

/// A protocol as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl From<Transport> for Protocol {
    fn from(typed: Transport) -> Self {
        match typed {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        }
    }
}

/// The answer for programs.
#[derive(Serialize)]
struct List {
    looked_at: u64,
    matched: u64,
    flows: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    flow: Flow,
    listener_name: String,
}

/// Asks, and prints.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match list(arguments) {
        Ok(list) => {
            let style = Style { colour: output::wants_colour(), verbose: false };
            output::print(arguments.output, &list, || page(&list, style), ExitCode::SUCCESS)
        }
        Err(reason) => no_answer(&reason),
    }
}

fn list(arguments: &Arguments) -> Result<List, String> {
    let names = Names::read(&arguments.place.run_dir);
    let filter = filter(arguments, &names)?;
    let question = Question::Flows { filter: Box::new(filter), limit: arguments.limit };
    let mut flows = Vec::new();
    let last = ask(&arguments.place.run_dir, &question, |answer| {
        if let Answer::Flow(flow) = answer {
            flows.push(Listed { listener_name: names.listener(flow.listener), flow });
        }
        Ok(())
    })?;
    let Answer::Done { looked_at, matched } = last else {
        return Err("the data plane is of another version: upgrade both".to_owned());
    };
    flows.sort_by_key(|listed| listed.flow.idle_ms);
    Ok(List { looked_at, matched, flows })
}

fn filter(arguments: &Arguments, names: &Names) -> Result<FlowFilter, String> {
    let listeners = match &arguments.listener {
        None => Vec::new(),
        Some(name) => match names.listeners_called(name) {
            rows if rows.is_empty() => {
                let known = Vec::from_iter(names.listener_names()).join(", ");
                return Err(format!("no listener is called {name}: there are {known}"));
            }
            rows => rows,
        },
    };
    Ok(FlowFilter {
        client: arguments.client,
        vip: arguments.vip,
        outside: arguments.outside,
        backend: arguments.backend,
        state: arguments.state.clone(),
        protocol: arguments.protocol.map(Into::into),
        listeners,
    })
}

fn page(list: &List, style: Style) -> String {
    let mut grid = Grid::new(&[
        "PROTOCOL", "CLIENT", "VIP", "OUTSIDE", "BACKEND", "STATE", ">IDLE", ">WORKER", "LISTENER",
    ]);
    for Listed { flow, listener_name } in &list.flows {
        grid.row([
            flow.protocol.to_string().into(),
            flow.client.to_string().into(),
            flow.vip.to_string().into(),
            flow.outside.to_string().into(),
            flow.backend.to_string().into(),
            flow.state.clone().into(),
            Span(Duration::from_millis(flow.idle_ms.into())).to_string().into(),
            flow.worker.to_string().into(),
            style.name(listener_name).into(),
        ]);
    }
    let mut text = if grid.is_empty() { String::new() } else { grid.render(style) };
    let List { looked_at, matched, flows } = list;
    let shown = flows.len();
    let _ = writeln!(text, "{shown} shown, {matched} match, of {looked_at} flows"); // cannot fail
    text
}
