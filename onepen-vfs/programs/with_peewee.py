"""peewee: `db.atomic()`, get, save."""

from peewee import IntegerField, Model, SqliteDatabase

from worker import many, options

path, given = options()
db = SqliteDatabase(path)


class Counter(Model):
    n = IntegerField()

    class Meta:
        database = db
        table_name = "counter"


def transaction():
    with db.atomic():
        counter = Counter.get_by_id(1)
        counter.n += 1
        counter.save()


db.connect()
many(int(given["transactions"]), transaction)
