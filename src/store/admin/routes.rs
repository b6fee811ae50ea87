//! The numbers under which the books know APIs and their routes.

use rusqlite::params;

use crate::model::RouteId;
use crate::store::writer::write::{WriteFault, WriteTx};
use crate::store::{Store, Unavailable};

impl Store {
    /// The number under which charges of an API's route stand in the books; made when it is new.
    ///
    /// # Errors
    /// The books cannot be written now.
    pub async fn route_id(&self, api_name: &str, route: &str) -> Result<RouteId, Unavailable> {
        let (api_name, route) = (api_name.to_owned(), route.to_owned());
        let body = move |tx: &mut WriteTx<'_>| -> Result<RouteId, WriteFault<std::convert::Infallible>> {
            let connection = tx.connection();
            connection.execute(
                "INSERT INTO keytoll_routes (api_name, route) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![api_name, route],
            )?;
            let id = connection.query_row(
                "SELECT id FROM keytoll_routes WHERE api_name = ?1 AND route = ?2",
                params![api_name, route],
                |row| row.get(0),
            )?;
            Ok(RouteId(id))
        };
        self.write(body).await.map_err(Unavailable::from)
    }
}
