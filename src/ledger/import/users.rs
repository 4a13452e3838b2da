//! `user_id;product_type;fee;origin`, at will `currency`: who pays, and what.

use std::collections::BTreeSet;
use std::io::Read;

use crate::db::Inserts;

use super::super::money::{BadAmount, Currency};
use super::rows::{Header, Rows};
use super::{ImportError, Reject, Run, id, insert, push_first, text};

struct Subscriber {
    product: String,
    fee: i64,
    currency: String,
    origin: String,
}

pub(super) async fn import<R: Read>(run: &mut Run<'_, R>, header: &Header) -> Result<(), ImportError> {
    let [user, product, fee, origin] = header.columns(["user_id", "product_type", "fee", "origin"])?;
    let currency = header.find("currency");
    let (place, comma, width) = (run.place, run.format.decimal_comma, header.width());
    let parse = |row: &Rows<R>| {
        if row.width() != width {
            return Err(Reject::new(
                "row",
                format!("has {} fields, the header {width}", row.width()),
            ));
        }
        let named = currency
            .map(|column| text("currency", row.field(column)))
            .transpose()?;
        let currency = match named.map(str::trim).filter(|named| !named.is_empty()) {
            Some(named) => Currency::parse(named).ok_or_else(|| Reject::new("currency", "is none"))?,
            None => place.terms.home.clone(),
        };
        let fee = currency
            .read(text("fee", row.field(fee))?, comma)
            .map_err(|why| {
                let reject = Reject::new("fee", why.to_string());
                if why == BadAmount::Comma {
                    reject.for_lack_of("--decimal-comma")
                } else {
                    reject
                }
            })?;
        let origin = text("origin", row.field(origin))?.trim().to_lowercase();
        if !place.terms.shares.contains_key(&origin) {
            return Err(Reject::new(
                "origin",
                format!("{origin:?} has no share in ledger.shares"),
            ));
        }
        let subscriber = Subscriber {
            product: text("product_type", row.field(product))?.trim().to_owned(),
            fee,
            currency: currency.code().to_owned(),
            origin,
        };
        Ok((id("user_id", row.field(user))?, subscriber))
    };
    loop {
        let batch = run.batch(parse)?;
        if batch.is_empty() {
            return Ok(());
        }
        let rows = batch.len();
        let mut inserts = Inserts::new(
            "INSERT INTO subscribers (tenant, user_id, product_type, fee, currency, origin) VALUES ",
            " ON CONFLICT (tenant, user_id) DO UPDATE SET product_type = excluded.product_type, fee = excluded.fee, \
             currency = excluded.currency, origin = excluded.origin WHERE subscribers.fee <> excluded.fee \
             OR subscribers.product_type <> excluded.product_type OR subscribers.currency <> excluded.currency \
             OR subscribers.origin <> excluded.origin",
        );
        for (user, subscriber) in batch {
            inserts.add(|sql, first| {
                push_first(sql, first, place.tenant);
                sql.bind_all([user, subscriber.product]);
                sql.push(", ").bind(subscriber.fee).push(", ");
                sql.bind_all([subscriber.currency, subscriber.origin]).push(")");
            });
        }
        let changed = insert(place, &BTreeSet::new(), inserts).await?;
        run.wrote(rows, changed);
    }
}
