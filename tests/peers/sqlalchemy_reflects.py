"""What SQLAlchemy, and the tools that stand on it, find in a warehouse. usage: sqlalchemy_reflects.py URL"""

import sys

import sqlalchemy

engine = sqlalchemy.create_engine(sys.argv[1])
inspector = sqlalchemy.inspect(engine)
assert "public" in inspector.get_schema_names()
print("tables", sorted(inspector.get_table_names()))
print("views", sorted(inspector.get_view_names()))
print("materialized", sorted(inspector.get_materialized_view_names()))
print("columns", [(c["name"], str(c["type"])) for c in inspector.get_columns("paid")])
for ask in (inspector.get_pk_constraint, inspector.get_foreign_keys, inspector.get_indexes, inspector.get_unique_constraints):
    ask("sales")
sales = sqlalchemy.Table("sales", sqlalchemy.MetaData(), autoload_with=engine)
with engine.connect() as connection:
    print("sum", connection.execute(sqlalchemy.select(sqlalchemy.func.sum(sales.c.amount))).scalar_one())
    job = connection.execute(sqlalchemy.text("SELECT cron.schedule(:name, :at, 'VACUUM') AS job"), {"name": "it's", "at": "0 3 * * *"})
    print("job", job.mappings().one()["job"])
