"""``ENGINE = "onepen.django"``: see :mod:`onepen.django.base`."""
