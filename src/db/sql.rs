//! Statements that are put together: filters, sort orders, lists of values.

use sqlx::any::AnyArguments;
use sqlx::{Any, AssertSqlSafe, Encode, Type};

/// A statement and its parameters. Only text of this program gets into the statement, values only as parameters.
#[derive(Default)]
pub struct Sql {
    text: String,
    arguments: AnyArguments,
    bound: usize,
}

/// A statement that can be run.
pub(super) type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

impl Sql {
    /// Begins with this text.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        let mut sql = Self::default();
        sql.push(text);
        sql
    }

    /// Goes on with this text.
    pub fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Goes on with a parameter that has this value.
    ///
    /// # Panics
    /// Never for the types of this project: encoding them cannot fail.
    pub fn bind<'t, T: Encode<'t, Any> + Type<Any>>(&mut self, value: T) -> &mut Self {
        use sqlx::Arguments as _;
        self.arguments
            .add(value)
            .expect("numbers, texts and bytes can be encoded");
        self.bound += 1;
        self.text.push('$');
        self.text.push_str(&self.bound.to_string());
        self
    }

    /// Goes on with parameters that have these values, separated by commas.
    pub fn bind_all<'t, T: Encode<'t, Any> + Type<Any>>(
        &mut self,
        values: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
        self
    }

    /// The statement, to be run.
    pub fn query(self) -> sqlx::query::Query<'static, Any, AnyArguments> {
        sqlx::query_with(AssertSqlSafe(self.text), self.arguments)
    }
}

/// `text` as a pattern of `LIKE .. ESCAPE '\'` that finds it anywhere.
#[must_use]
pub fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}
