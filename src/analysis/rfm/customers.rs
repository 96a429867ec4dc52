//! What each customer bought, how often and when: the figures that RFM scores.

use super::super::{Request, all_known, column_list, misuse, relation_name, same_customer};
use crate::dialect::{literal, quoted};
use crate::error::Result;

/// How rows become orders.
pub(in super::super) struct Orders {
    /// Columns of the customer.
    pub(in super::super) names: Vec<String>,
    relation: String,
    time: String,
    amount: String,
    order_id: Option<String>,
    refund_of: Option<String>,
    currency: Option<String>,
    /// The relation of rates by which amounts are converted.
    rates: Option<String>,
    is_cancelled: String,
    /// The report that asks.
    function: &'static str,
    timezone: String,
    /// Whether what was taken off is no line of an order.
    is_gross: bool,
}

/// How orders become a customer's figures.
pub(in super::super) struct Figures {
    /// Columns of the customer.
    pub(in super::super) names: Vec<String>,
    /// The day the report speaks for, as SQL.
    pub(super) as_of: Option<String>,
    orders: Orders,
    window_days: Option<i64>,
    refunds: &'static str,
    frequency: &'static str,
    monetary: &'static str,
    recency_scope: &'static str,
    population: &'static str,
    customers: Option<String>,
}

impl Orders {
    /// Reads the arguments that say where orders are and which are none.
    pub(in super::super) fn read(request: &mut Request) -> Result<Self> {
        let names = request.customer()?;
        let time = request.time_column(&["ordered_at", "occurred_at"])?;
        let amount = request.needed_column("amount", &["amount"])?;
        let order_id = request.column("order_id", &["order_id"])?;
        let status = request.column("status", &["status"])?;
        let currency = request.column("currency", &["currency"])?;
        let rates = request.arguments.text("rates")?;
        if rates.is_some() && currency.is_none() {
            return Err(misuse(
                request.function,
                "rates convert amounts by their currency, and there is no such column: currency => '...'",
            ));
        }
        let timezone = request.timezone()?;
        let cancelled = request.arguments.texts("cancelled")?;
        let cancelled = cancelled.unwrap_or_else(|| vec!["cancelled".into(), "canceled".into()]);
        let words: Vec<String> =
            cancelled.iter().map(|word| literal(&word.to_lowercase())).collect();
        let is_cancelled = status.map_or("false".to_owned(), |status| {
            format!("__is_word(CAST({} AS TEXT), {})", quoted(&status), words.join(", "))
        });
        Ok(Self {
            names,
            relation: request.relation.clone(),
            time: quoted(&time),
            amount,
            order_id: order_id.map(|column| quoted(&column)),
            refund_of: None,
            currency: currency.map(|column| quoted(&column)),
            rates,
            is_cancelled,
            function: request.function,
            timezone,
            is_gross: false,
        })
    }

    /// One row an order: its day, its amount, and whether it is void. Lines of an order are one sum, at the day of the first. An order is
    /// void when all of its lines are cancelled; of others a cancelled line is none, or takes off what it takes off. Of lines after the day
    /// `until` nothing is known.
    pub(in super::super) fn each(&self, until: Option<&str>) -> String {
        let names = column_list(&self.names);
        let day = format!("local_date({}, {})", self.time, self.timezone);
        let line = self.money(&day);
        let line = match self.is_gross {
            true => format!("CASE WHEN {line} > 0 THEN {line} END"),
            false => line,
        };
        let currencies = |lowest: &str, highest: &str| match self.has_prices() {
            Some(column) => format!(
                ", {lowest}(CAST({column} AS TEXT)) AS __lowest, {highest}(CAST({column} AS TEXT)) AS __highest"
            ),
            None => String::new(),
        };
        let until = until.map_or(String::new(), |until| format!(" AND {day} <= {until}"));
        let from = format!(
            "FROM {} AS __r{} WHERE {} AND {} IS NOT NULL{until}",
            self.relation,
            self.with_rates(&day),
            all_known(&self.names),
            self.time
        );
        let Some(order_id) = &self.order_id else {
            return format!(
                "SELECT {names}, {day} AS __day, {line} AS __amount, {} AS __void{} {from}",
                self.is_cancelled,
                currencies("", "")
            );
        };
        let refund_of =
            self.refund_of.as_ref().map(|column| format!(", max({column}) AS __refund_of"));
        format!(
            "SELECT {names}, __order, get_field(__is, 'day') AS __day, get_field(__is, 'amount') AS __amount, get_field(__is, 'void') AS __void{}{} FROM \
               (SELECT {names}, {order_id} AS __order, __order_of({day}, {line}, {}) AS __is{}{} {from} \
                GROUP BY {names}, {order_id}, __apart({order_id})) AS __lines",
            self.carried(", __lowest, __highest"),
            if refund_of.is_some() { ", __refund_of" } else { "" },
            self.is_cancelled,
            currencies("min", "max"),
            refund_of.unwrap_or_default(),
        )
    }

    /// The amount of a row in the one currency. Money is summed as a decimal, row by row, whatever it was loaded as.
    fn money(&self, day: &str) -> String {
        let amount = quoted(&self.amount);
        match (&self.rates, &self.currency) {
            (Some(_), Some(currency)) => format!(
                "CAST(CAST({amount} AS DECIMAL(20, 6)) * __rate_of(__x.__rate, CAST({currency} AS TEXT), {day}, {}) AS DECIMAL(38, 6))",
                literal(self.function)
            ),
            _ => format!("CAST({amount} AS DECIMAL(38, 6))"),
        }
    }

    /// The rate of each row: the last of its currency that is not after its day.
    fn with_rates(&self, day: &str) -> String {
        let (Some(rates), Some(currency)) = (&self.rates, &self.currency) else {
            return String::new();
        };
        format!(
            " LEFT JOIN (SELECT CAST(currency AS TEXT) AS __of, CAST(rate AS DECIMAL(16, 8)) AS __rate, CAST(day AS DATE) AS __from, \
                lead(CAST(day AS DATE)) OVER (PARTITION BY currency ORDER BY day) AS __to FROM {}) AS __x \
             ON __x.__of = CAST({currency} AS TEXT) AND {day} >= __x.__from AND (__x.__to IS NULL OR {day} < __x.__to)",
            relation_name(rates)
        )
    }

    /// Orders, with refunds at the day of the order that they name.
    fn dated(&self, until: Option<&str>) -> String {
        let orders = self.each(until);
        if self.refund_of.is_none() {
            return orders;
        }
        let same = same_customer(&self.names, "__b", "__o");
        let names: Vec<String> =
            self.names.iter().map(|name| format!("__o.{}", quoted(name))).collect();
        format!(
            "SELECT {}, CASE WHEN __o.__amount < 0 THEN coalesce(__b.__day, __o.__day) ELSE __o.__day END AS __day, \
               __o.__amount, __o.__void{} \
             FROM ({orders}) AS __o LEFT JOIN ({orders}) AS __b ON {} AND __b.__order = __o.__refund_of AND __b.__amount > 0",
            names.join(", "),
            self.carried(", __o.__lowest, __o.__highest"),
            same
        )
    }
}

impl Orders {
    /// The column of the currency, where amounts of one only may be added.
    fn has_prices(&self) -> Option<&str> {
        self.currency.as_deref().filter(|_| self.rates.is_none())
    }

    /// `columns`, which carry the lowest and the highest currency on, where there is one to watch.
    fn carried<'a>(&self, columns: &'a str) -> &'a str {
        self.has_prices().map_or("", |_| columns)
    }

    /// Of several orders the lowest and the highest currency, as two columns that follow others.
    pub(in super::super) fn currencies(&self) -> &'static str {
        self.carried(", min(__lowest) AS __lowest, max(__highest) AS __highest")
    }

    /// Whether a report is about customers' whole lives.
    fn are_of_lives(&self) -> bool {
        !self.function.starts_with("rfm")
    }

    /// `rows`, which have the lowest and the highest currency as `__lowest` and `__highest`; an error where there are two.
    pub(in super::super) fn of_one_currency(&self, rows: &str) -> String {
        if self.has_prices().is_none() {
            return rows.to_owned();
        }
        format!(
            "SELECT * FROM (SELECT *, __one_currency(min(__lowest) OVER (), max(__highest) OVER (), {}) AS __is_one \
             FROM ({rows}) AS __priced) AS __checked WHERE __is_one",
            literal(self.function)
        )
    }
}

impl Figures {
    /// As [`Self::read`], of a customer's whole life: of all who ever bought, or of all who are known.
    pub(in super::super) fn read_for_life(request: &mut Request) -> Result<Self> {
        let mut figures = Self::read(request)?;
        if figures.customers.is_none() {
            figures.population = "history";
        }
        Ok(figures)
    }

    /// Reads the arguments that say what counts.
    pub(super) fn read(request: &mut Request) -> Result<Self> {
        let mut orders = Orders::read(request)?;
        let refund_of = request.column("refund_of", &["refund_of"])?;
        let as_of = request.as_of()?;
        let arguments = &mut request.arguments;
        // A report about whole lives has no window, and its customers by the relation alone.
        let is_of_lives = orders.are_of_lives();
        let mut word = |name, words: &[&'static str]| match is_of_lives {
            true => Ok(words[0]),
            false => arguments.word(name, words),
        };
        let frequency = word("frequency", &["orders", "days", "repeat"])?;
        let monetary = word("monetary", &["sum", "avg", "max"])?;
        let recency_scope = word("recency_scope", &["window", "history"])?;
        let population = word("population", &["window", "history", "all"])?;
        let refunds = arguments.word("refunds", &["net", "net_order", "ignore", "gross"])?;
        let window_days = match is_of_lives {
            true => None,
            false => arguments.number("window_days", 1..=36_500)?,
        };
        let customers = arguments.text("customers")?;
        let wrong = |problem: &str| Err(misuse(request.function, problem));
        let population = if is_of_lives && customers.is_some() { "all" } else { population };
        if (population == "all") != customers.is_some() {
            return wrong(
                "population => 'all' and customers => 'relation' go together: the relation has the customers' columns",
            );
        }
        if refunds == "net_order" && (orders.order_id.is_none() || refund_of.is_none()) {
            return wrong(
                "refunds => 'net_order' needs order_id, and refund_of => the column that names the order of a refund",
            );
        }
        if refunds == "net_order" {
            orders.refund_of = refund_of.map(|column| quoted(&column));
        }
        orders.is_gross = refunds == "gross";
        Ok(Self {
            names: orders.names.clone(),
            as_of,
            orders,
            window_days,
            refunds,
            frequency,
            monetary,
            recency_scope,
            population,
            customers,
        })
    }

    /// What is counted, in words.
    pub(super) fn described(&self) -> String {
        let window = self.window_days.map_or("all".to_owned(), |days| format!("{days} days"));
        format!(
            "window {window}, refunds {}, frequency {}, monetary {}, recency {}, population {}",
            self.refunds, self.frequency, self.monetary, self.recency_scope, self.population
        )
    }

    /// One row a customer: recency_days, frequency, monetary, and whether it ever bought. `as_of` takes the place of the day.
    pub(in super::super) fn people(&self, as_of: Option<&str>) -> String {
        let names = column_list(&self.names);
        let counts = "(NOT __void AND __amount > 0)";
        // The last day of a counting order is the default day: a report must not depend on when it is run. Without a window every
        // order is before it, so it is known when the customers are; with one it has to be known before.
        let given = as_of.or(self.as_of.as_deref());
        let is_before = given.is_none() && self.window_days.is_some();
        let orders = match is_before {
            true => format!(
                "SELECT * FROM ({orders}) AS __each CROSS JOIN \
                   (SELECT max(__day) AS __today FROM ({latest}) AS __latest WHERE {counts}) AS __last_day",
                orders = self.orders.dated(None),
                latest = self.orders.each(None),
            ),
            false => self.orders.dated(given),
        };
        let day = given.map_or_else(|| "__today".to_owned(), |day| format!("({day})"));
        let is_in = match self.window_days {
            Some(days) => format!("__day > {day} - {days}"),
            None => "true".to_owned(),
        };
        let is_past = match given.is_some() || is_before {
            true => format!("__day <= {day}"),
            false => "true".to_owned(),
        };
        let is_of_window = self.recency_scope == "window" && self.population == "window";
        let within = if is_of_window { format!("AND {is_in}") } else { String::new() };
        let has_refunds = ["net", "net_order"].contains(&self.refunds);
        let refunded = if has_refunds { "OR __amount < 0" } else { "" };
        let orders_in = format!("count(*) FILTER (WHERE {counts} AND {is_in})");
        let frequency = match self.frequency {
            "days" => format!("count(DISTINCT __day) FILTER (WHERE {counts} AND {is_in})"),
            "repeat" => format!("greatest({orders_in} - 1, 0)"),
            _ => orders_in.clone(),
        };
        let sum =
            format!("coalesce(sum(__amount) FILTER (WHERE ({counts} {refunded}) AND {is_in}), 0)");
        let monetary = match self.monetary {
            "avg" => format!("CASE WHEN {orders_in} = 0 THEN 0 ELSE {sum} / {orders_in} END"),
            "max" => format!("coalesce(max(__amount) FILTER (WHERE {counts} AND {is_in}), 0)"),
            _ => sum,
        };
        let last = match is_of_window {
            true => format!("max(__day) FILTER (WHERE {counts} AND {is_in})"),
            false => format!("max(__day) FILTER (WHERE {counts})"),
        };
        let is_one = match self.population {
            "window" => format!("{orders_in} > 0"),
            _ => format!("count(*) FILTER (WHERE {counts}) > 0"),
        };
        let today = if is_before { "max(__today)" } else { "CAST(NULL AS DATE)" };
        let bought = format!(
            "SELECT {names}, {last} AS __last, CAST({frequency} AS BIGINT) AS frequency, \
               CAST({monetary} AS DECIMAL(38, 6)) AS monetary, {today} AS __today{} \
             FROM ({orders}) AS __orders WHERE {is_past} {within} GROUP BY {names} HAVING {is_one}",
            self.orders.currencies()
        );
        let as_of = match given {
            Some(day) => format!("({day})"),
            None if is_before => "max(__today) OVER ()".to_owned(),
            None => "max(__last) OVER ()".to_owned(),
        };
        let figures = "CAST(__as_of - __last AS BIGINT) AS recency_days";
        let Some(customers) = &self.customers else {
            return self.orders.of_one_currency(&format!(
                "SELECT *, {figures}, true AS __bought FROM (SELECT *, {as_of} AS __as_of FROM ({bought}) AS __b) AS __customers"
            ));
        };
        let all = relation_name(customers);
        let same = same_customer(&self.names, "__b", "__a");
        // Of whole lives the relation adds those who never bought; a population is the relation's.
        let is_of_lives = self.orders.are_of_lives();
        let join = if is_of_lives { "FULL" } else { "LEFT" };
        let own: Vec<String> = { self.names.iter() }
            .map(|name| match is_of_lives {
                true => format!("coalesce(__a.{0}, __b.{0}) AS {0}", quoted(name)),
                false => format!("__a.{}", quoted(name)),
            })
            .collect();
        self.orders.of_one_currency(&format!(
            "SELECT *, {figures}, __last IS NOT NULL AS __bought FROM \
               (SELECT *, {as_of} AS __as_of FROM \
                 (SELECT {}, __b.__last, coalesce(__b.frequency, 0) AS frequency, \
                    coalesce(__b.monetary, CAST(0 AS DECIMAL(38, 6))) AS monetary, __b.__today{} \
                  FROM (SELECT DISTINCT {names} FROM {all} WHERE {}) AS __a {join} JOIN ({bought}) AS __b ON {}) AS __all) AS __customers",
            own.join(", "),
            self.orders.carried(", __b.__lowest, __b.__highest"),
            all_known(&self.names),
            same
        ))
    }
}
