"""Every door of the service by address. The native API is served under two prefixes with one shape."""

from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
]
