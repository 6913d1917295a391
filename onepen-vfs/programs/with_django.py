"""Django: `transaction.atomic()`, get, save. A worker process of several."""

import django
from django.conf import settings

from worker import many, options

path, given = options()
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path}},
    INSTALLED_APPS=[],
    USE_TZ=True,
)
django.setup()

from django.db import models, transaction  # noqa: E402


class Counter(models.Model):
    id = models.IntegerField(primary_key=True)
    n = models.IntegerField()

    class Meta:
        app_label = "shop"
        db_table = "counter"
        managed = False


def request():
    with transaction.atomic():
        counter = Counter.objects.get(pk=1)
        counter.n += 1
        counter.save()


many(int(given["transactions"]), request)
