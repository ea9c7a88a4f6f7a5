//! What is to come, told and drawn.

use serde_json::Value;

use crate::live::lab::{CALM, Lab, wait_until};

fn simulated(lab: &Lab, args: &[&str]) -> Value {
    let all = [&["simulate", "--json", "--for", "200d"], args].concat();
    serde_json::from_str(&lab.ok(&all)).expect("JSON")
}

/// Days from one date to another.
fn days(from: &Value, to: &Value) -> u64 {
    let date = |at: &Value| {
        let at = at.as_str().unwrap_or_else(|| panic!("no date: {at}"));
        humantime::parse_rfc3339(at).expect("a date")
    };
    let span = date(to).duration_since(date(from)).expect("later");
    span.as_secs() / 86_400
}

#[test]
fn a_key_set_is_foretold_before_it_begins_and_from_its_record() {
    let lab = Lab::new(CALM, &["ES256"]);
    let told = simulated(&lab, &[]);
    let set = &told["key_sets"][0];
    assert_eq!(set["from_record"], false);
    let keys = set["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 4, "{keys:#?}");
    let (first, second) = (&keys[0], &keys[1]);
    assert_eq!(days(&first["active"], &second["active"]), 90);
    assert_eq!(days(&first["active"], &first["private_destroyed"]), 91);
    assert_eq!(second["published"], first["published"]);

    lab.init();
    let set = &simulated(&lab, &[])["key_sets"][0];
    assert_eq!(set["from_record"], true);
    let kids: Vec<&str> = (set["keys"].as_array().expect("keys").iter())
        .map(|key| key["kid"].as_str().expect("an id"))
        .collect();
    // The one that is there, and those that are to be made.
    assert_eq!(kids[0].len(), 43, "{kids:?}");
    assert!(kids[1].starts_with("ES256 #"), "{kids:?}");

    let svg = lab.path("timeline.svg");
    let file = svg.to_str().expect("text");
    let table = lab.ok(&["simulate", "--for", "2y", "--svg", file]);
    assert!(
        table.contains("leaves the JWKS") && table.contains(file),
        "{table}"
    );
    let drawn = std::fs::read_to_string(&svg).expect("the picture");
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"));
    assert!(drawn.contains(">now</text>") && drawn.contains(&kids[0][..20]));
    // Where a day alone would not tell marks from each other, the time does.
    let is_time = |line: &str| {
        let time = line.trim().strip_suffix("Z</text>");
        let time = time.and_then(|line| line.get(line.len().checked_sub(8)?..));
        time.is_some_and(|time| time.bytes().filter(|byte| *byte == b':').count() == 2)
    };
    let times = |drawn: &str| drawn.lines().filter(|line| is_time(line)).count();
    assert_eq!(times(&drawn), 0, "{drawn}");
    lab.ok(&["simulate", "--for", "1d", "--svg", file]);
    let short = std::fs::read_to_string(&svg).expect("the picture");
    assert!(times(&short) >= 3, "{short}");
    // Nine keys sign in two years; most of them are drawn in each state.
    assert!(drawn.matches("<title>signs: ").count() == 9, "{drawn}");
    assert!(drawn.matches("<title>overlap").count() == 8, "{drawn}");
}

/// Found by review: the configuration was overwritten, and what could not be
/// read counted as not begun.
#[test]
fn nothing_is_overwritten_and_nothing_is_made_up() {
    let lab = Lab::new(CALM, &["ES256"]);
    let file = lab.path("sealkeeper.toml");
    let before = std::fs::read(&file).expect("the configuration");
    let name = file.to_str().expect("text");
    let out = lab.run(&["simulate", "--svg", name]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(std::fs::read(&file).expect("the configuration"), before);
    // A picture of before may go.
    let svg = lab.path("t.svg");
    for _ in 0..2 {
        lab.ok(&[
            "simulate",
            "--for",
            "1d",
            "--svg",
            svg.to_str().expect("text"),
        ]);
    }
    std::fs::create_dir_all(lab.path("state")).expect("a folder");
    std::fs::write(lab.path("state/keys.sqlite"), "no database").expect("a file");
    let out = lab.run(&["simulate"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot be read") && said.contains("hint: "),
        "{said}"
    );
}

/// Found by review: two years took a quarter of a minute, a hundred nobody saw
/// the end of.
#[test]
fn a_hundred_years_are_foretold() {
    let lab = Lab::new(CALM, &["ES256", "RS256"]);
    let began = std::time::Instant::now();
    let told: Value =
        serde_json::from_str(&lab.ok(&["simulate", "--json", "--for", "100y"])).expect("JSON");
    let set = &told["key_sets"][0];
    assert!(set["cut_short"].is_null(), "{}", set["cut_short"]);
    // Four a year in each track.
    let keys = set["keys"].as_array().expect("keys").len();
    assert!((800..=830).contains(&keys), "{keys}");
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(60), "{took:?}");
}

/// From a record that its agent left long ago, what is overdue is told for the
/// first instant at which it is safe, and nothing for a time that is over.
#[test]
fn a_record_of_long_ago_has_a_future_and_no_past() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let (offset, now) = (lab.path("offset"), std::time::SystemTime::now());
    let days = 200;
    std::fs::write(&offset, (days * 86_400_000u64).to_string()).expect("a file");
    let mut command = lab.command(&["simulate", "--json", "--for", "200d"]);
    command.env("SEALKEEPER_TEST_CLOCK_OFFSET", &offset);
    let out = command.output().expect("the program");
    assert!(out.status.success(), "{out:?}");
    let told: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let set = &told["key_sets"][0];
    assert_eq!(set["from_record"], true);
    let events = set["events"].as_array().expect("events");
    assert!(!events.is_empty(), "{set:#}");
    let then = now + std::time::Duration::from_secs(days * 86_400 - 60);
    for event in events {
        let at = humantime::parse_rfc3339(event["at"].as_str().expect("a date"));
        assert!(at.expect("a date") >= then, "{event:#}");
    }
    // The key is made, waits for a day, and takes over long before a period.
    let keys = set["keys"].as_array().expect("keys");
    let next = humantime::parse_rfc3339(keys[1]["active"].as_str().expect("a date"));
    let late = next.expect("a date").duration_since(then).expect("later");
    assert!(late.as_secs() < 2 * 86_400, "{keys:#?}");
}

#[test]
fn nonsense_is_refused() {
    let lab = Lab::new(CALM, &["ES256"]);
    for span in ["0s", "1000y", "soon"] {
        let out = lab.run(&["simulate", "--for", span]);
        assert_eq!(out.status.code(), Some(2), "{span}");
    }
}

/// Found by review: it counted sightings from now on, whatever was on record,
/// and said nothing of what came later than it looked.
#[tokio::test]
async fn dates_are_those_of_the_agent_however_often_it_is_asked() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    // The standby is there, and was seen by the agent's own listener.
    wait_until(async || {
        let keys = lab.keys();
        let seen = keys.iter().filter(|key| key["observed"].is_string());
        seen.count() == 2
    })
    .await;
    // As soon as rule 1 allows: a day after the sightings, not after now.
    lab.ok(&["keys", "rotate"]);
    let listing: Value = serde_json::from_str(&lab.ok(&["keys", "list", "--json"])).expect("JSON");
    let next = &listing["key_sets"][0]["next"];
    let date = |at: &Value| humantime::parse_rfc3339(at.as_str().expect("a date")).expect("a date");
    // The one retires when the other becomes active.
    let mut events = next.as_array().expect("what is next").iter();
    let retires = events.find(|event| event["kind"] == "retire");
    let coming = date(&retires.unwrap_or_else(|| panic!("none retires: {next:#}"))["at"]);
    let told = simulated(&lab, &[]);
    let keys = told["key_sets"][0]["keys"].as_array().expect("keys");
    assert_eq!(date(&keys[0]["retiring"]), coming, "{next:#}");
    assert_eq!(date(&keys[1]["active"]), coming, "{next:#}");

    // Nothing happens in an hour, and what is next is told all the same.
    let soon: Value =
        serde_json::from_str(&lab.ok(&["simulate", "--json", "--for", "1h"])).expect("JSON");
    let set = &soon["key_sets"][0];
    assert_eq!(set["events"].as_array().map(Vec::len), Some(0), "{set:#}");
    assert_eq!(date(&set["next"]["at"]), coming);
    let table = lab.ok(&["simulate", "--for", "1h"]);
    assert!(
        table.contains("nothing happens so soon; next, at"),
        "{table}"
    );
    daemon.kill();
}
