//! The ledger's commands: files of history as they really are, and statements to the cent, on both engines.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::postgres::Postgres;
use crate::stage::{Place, Ran};

/// An installation: where its rows are, and how its commands are run.
pub(crate) struct Books {
    place: Place,
    database: Option<String>,
    _server: Option<Postgres>,
}

impl Books {
    pub(crate) fn on_sqlite() -> Self {
        Self {
            place: Place::new(),
            database: None,
            _server: None,
        }
    }

    pub(crate) async fn on_postgres() -> Self {
        let server = Postgres::start().await;
        Self {
            place: Place::new(),
            database: Some(server.url()),
            _server: Some(server),
        }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut arguments = arguments.to_vec();
        if let Some(url) = &self.database {
            arguments.extend(["--database", url]);
        }
        self.place.run(&[], &arguments)
    }

    fn import(&self, kind: &str, text: &str, options: &[&str]) -> Ran {
        self.place.write("file.csv", text);
        let mut arguments = vec!["import", kind, "file.csv"];
        arguments.extend(options);
        let ran = self.run(&arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran
    }

    fn report(&self, model: &str, options: &[&str]) -> String {
        let mut arguments = vec![
            "report",
            "royalties",
            "--from",
            "2019-03-01",
            "--to",
            "2019-04-01",
            "--model",
            model,
        ];
        arguments.extend(options);
        let ran = self.run(&arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    }

    fn json(&self, model: &str, options: &[&str]) -> Value {
        let mut options = options.to_vec();
        options.extend(["--format", "json"]);
        serde_json::from_str(&self.report(model, &options)).unwrap()
    }

    fn rejects(&self) -> String {
        std::fs::read_to_string(self.place.path().join("file.csv.rejects.csv")).unwrap_or_default()
    }
}

fn counts(ran: &Ran) -> [u64; 4] {
    let number = |name: &str| {
        let line = ran
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {}", ran.stdout))
            .parse()
            .unwrap()
    };
    ["read", "taken", "already there", "rejected"].map(number)
}

pub(crate) const USERS: &str = "user_id;product_type;fee;origin\nA;premium;7.99;app_store\nB;platinum;14.99;web\nC;premium;7.99;web\n\
    D;platinum;14.99;app_store\n";
pub(crate) const TRACKS: &str = "track id;track name;label\nt1;One;L1\nt2;Two;L2\nt3;Three;L3\n";
pub(crate) const PLAYS: &str = "date;user_id;region;track id;seconds\n2019-03-01;A;NL;t1;400\n2019-03-02;A;nl;t1;600\n\
    2019-03-31;B;NL;t2;8000\n2019-03-03;B;BE;t3;2000\n2019-03-04;C;NL;t1;3000\n2019-03-05;C;NL;t2;1000\n\
    2019-03-06;D;NL;t3;5000\n2019-04-01;A;NL;t1;99999\n2019-02-28;A;NL;t1;99999\n";
const SEMICOLON: [&str; 2] = ["--separator", ";"];

fn the_worked_example(books: &Books) {
    assert_eq!(counts(&books.import("users", USERS, &SEMICOLON)), [4, 4, 0, 0]);
    assert_eq!(counts(&books.import("plays", PLAYS, &SEMICOLON)), [9, 9, 0, 0]);
    let before = books.json("pro_rata", &[]);
    assert_eq!(
        (&before["incomplete"], &before["rows"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(
        before["unlabelled"],
        json!({"seconds": 20_000, "amount": "36.76"})
    );
    assert_eq!(counts(&books.import("tracks", TRACKS, &SEMICOLON)), [3, 3, 0, 0]);
    let rows = |amounts: [&str; 3]| {
        let [one, two, three] = amounts;
        json!([{"label": "L1", "seconds": 4000, "amount": one}, {"label": "L2", "seconds": 9000, "amount": two},
            {"label": "L3", "seconds": 7000, "amount": three}])
    };
    let whole = |model: &str, pool: &str, amounts, unallocated: Value| {
        json!({"model": model, "from": "2019-03-01", "to": "2019-04-01", "currency": "EUR", "pool": pool,
            "incomplete": false, "rows": rows(amounts), "unlabelled": {"seconds": 0, "amount": "0.00"},
            "unallocated": unallocated})
    };
    let nobody = json!({"users": 0, "amount": "0.00"});
    let rata = whole("pro_rata", "36.76", ["7.35", "16.54", "12.87"], nobody.clone());
    assert_eq!(books.json("pro_rata", &[]), rata);
    let centric = whole(
        "user_centric",
        "36.76",
        ["10.98", "12.59", "13.19"],
        nobody.clone(),
    );
    assert_eq!(books.json("user_centric", &[]), centric);
    let with_e = format!("{USERS}E;premium;7.99;web\n");
    assert_eq!(counts(&books.import("users", &with_e, &SEMICOLON)), [5, 1, 4, 0]);
    let rata = whole("pro_rata", "43.95", ["8.79", "19.78", "15.38"], nobody);
    assert_eq!(books.json("pro_rata", &[]), rata);
    let idle = json!({"users": 1, "amount": "7.19"});
    let centric = whole("user_centric", "43.95", ["10.98", "12.59", "13.19"], idle);
    assert_eq!(books.json("user_centric", &[]), centric);

    // A region: the pool stays whole.
    let abroad = books.json("pro_rata", &["--region", "Be"]);
    assert_eq!(
        abroad["rows"],
        json!([{"label": "L3", "seconds": 2000, "amount": "4.40"}])
    );
    assert_eq!(
        abroad["outside_region"],
        json!({"seconds": 18_000, "amount": "39.55"})
    );
    assert_eq!(
        (&abroad["pool"], &abroad["region"]),
        (&json!("43.95"), &json!("BE"))
    );

    // Other forms of the same, and of nothing.
    let csv = books.report("pro_rata", &["--format", "csv"]);
    assert!(
        csv.starts_with("kind,label,seconds,amount,currency\nlabel,L1,4000,8.79,EUR\n"),
        "{csv}"
    );
    assert!(csv.ends_with("pool,,,43.95,EUR\n"), "{csv}");
    assert!(books.report("pro_rata", &[]).contains("L2"));
    let other = books.json("pro_rata", &["--tenant", "other"]);
    assert_eq!(
        (&other["pool"], &other["rows"]),
        (&json!("0.00"), &json!([])),
        "I7"
    );
    let empty = books.run(&[
        "report",
        "royalties",
        "--from",
        "2019-05-01",
        "--to",
        "2019-06-01",
        "--model",
        "pro_rata",
        "--format",
        "json",
    ]);
    let empty: Value = serde_json::from_str(&empty.stdout).unwrap();
    assert_eq!(empty["unallocated"], json!({"users": 5, "amount": "43.95"}));
}

fn again_and_in_any_order(books: &Books) {
    let mut text = "date,user_id,region,track id,seconds\n".to_owned();
    let mut rows: Vec<String> = (0..3000)
        .map(|row| {
            format!(
                "2019-03-{:02},u{},NL,t{},{}\n",
                row % 28 + 1,
                row % 17,
                row % 13,
                row % 50 + 1
            )
        })
        .collect();
    let equal = rows.len() - rows.iter().collect::<BTreeSet<_>>().len();
    rows.extend(std::iter::repeat_n("2019-03-01,same,NL,t1,5\n".to_owned(), 10));
    rows.iter().for_each(|row| text.push_str(row));
    assert_eq!(
        counts(&books.import("plays", &text, &[])),
        [3010, 3010, 0, 0],
        "{equal} rows equal another"
    );
    let first = books.report("user_centric", &["--format", "json"]);
    rows.reverse();
    let reversed = format!(
        "seconds,track_id,Region,user_id,more,date\n{}",
        rows.iter().fold(String::new(), |mut all, row| {
            let fields: Vec<_> = row.trim().split(',').collect();
            let [date, user, region, track, seconds] = fields[..] else {
                panic!("five")
            };
            let _ = writeln!(all, "{seconds},{track},{region},{user},x,{date}");
            all
        })
    );
    assert_eq!(counts(&books.import("plays", &reversed, &[])), [3010, 0, 3010, 0]);
    let eleven = format!(
        "date,user_id,region,track id,seconds\n{}",
        "2019-03-01,same,NL,t1,5\n".repeat(11)
    );
    assert_eq!(counts(&books.import("plays", &eleven, &[])), [11, 1, 10, 0]);
    let more = books.json("user_centric", &[]);
    let before: Value = serde_json::from_str(&first).unwrap();
    let seconds = |report: &Value| report["unlabelled"]["seconds"].as_i64().unwrap();
    assert_eq!(seconds(&more), seconds(&before) + 5);
    // Nobody of them pays.
    assert_eq!(more["pool"], "0.00");
    assert!(
        more["warnings"][0].as_str().unwrap().starts_with("18 users"),
        "{more}"
    );
}

fn ugly_rows_are_told_apart(books: &Books) {
    let users = "\u{FEFF}User_ID;Product_Type;FEE;origin;note\r\n a b ;premium;7,99;App_Store;x\r\n\r\nb;premium;7.99;web;x\r\n\
        c;premium;-1;web;x\r\nd;premium;1,999;web;x\r\n;premium;1;web;x\r\ne;premium;1;street;x\r\nf;premium\r\n\
        \"g\n;\";premium;14,9;web;x\r\n";
    let ran = books.import("users", users, &["--separator", ";", "--decimal-comma"]);
    assert_eq!(counts(&ran), [8, 2, 0, 6], "{}", ran.stderr);
    let rejects = books.rejects();
    for line in [
        "4,fee is no amount,b",
        "5,fee is negative,c",
        "6,fee has more decimals than the currency,d",
        "7,user_id is empty,",
        "8,\"origin \"\"street\"\" has no share in ledger.shares\",e",
        "9,\"row has 2 fields, the header 5\",f,premium",
    ] {
        assert!(rejects.contains(line), "{line} in {rejects}");
    }
    let plays = "date;user_id;region;track id;seconds\n01/03/2019;a;nL;t;100000\n02/03/2019;a;NL;t;0\n03/03/2019;a;NL;t;-5\n\
        03/13/2019;a;NL;t;5\n04/03/2019;a;NL;t;1.5\n05/03/2019;a;;t;7\n";
    let ran = books.import("plays", plays, &["--separator", ";"]);
    assert_eq!(counts(&ran), [6, 0, 0, 6]);
    assert!(
        ran.stderr.contains("--date-format seems to be missing"),
        "{}",
        ran.stderr
    );
    let ran = books.import("plays", plays, &["--separator", ";", "--date-format", "%d/%m/%Y"]);
    assert_eq!(counts(&ran), [6, 2, 0, 4]);
    assert!(!ran.stderr.contains("seems to be missing"));
    let rejects = books.rejects();
    assert!(
        rejects.contains("3,seconds must be from 1") && rejects.contains("5,date is no date"),
        "{rejects}"
    );
    let report = books.json("pro_rata", &["--region", "NL"]);
    assert_eq!(
        report["unlabelled"]["seconds"], 100_000,
        "the first of March: {report}"
    );
    assert_eq!(report["outside_region"]["seconds"], 7);

    let fees = books.import(
        "users",
        "user_id,product_type,fee,origin\nz,p,\"7,99\",web\n",
        &[],
    );
    assert_eq!(counts(&fees), [1, 0, 0, 1]);
    assert!(
        fees.stderr.contains("--decimal-comma seems to be missing"),
        "{}",
        fees.stderr
    );
    books.place.write("file.csv", USERS);
    let wrong = books.run(&["import", "users", "file.csv"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("--separator ';'"), "{}", wrong.stderr);
}

#[test]
fn the_worked_example_on_sqlite() {
    the_worked_example(&Books::on_sqlite());
}

#[tokio::test]
async fn the_worked_example_on_postgresql() {
    the_worked_example(&Books::on_postgres().await);
}

#[test]
fn imports_are_repeated_on_sqlite() {
    again_and_in_any_order(&Books::on_sqlite());
}

#[tokio::test]
async fn imports_are_repeated_on_postgresql() {
    again_and_in_any_order(&Books::on_postgres().await);
}

#[test]
fn ugly_rows_on_sqlite() {
    ugly_rows_are_told_apart(&Books::on_sqlite());
}

#[tokio::test]
async fn ugly_rows_on_postgresql() {
    ugly_rows_are_told_apart(&Books::on_postgres().await);
}
