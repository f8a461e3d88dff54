"""Every door of the service by address. Errors from outside of the views have the API's form as well."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("agent_jobs.api.urls")),
    path("", include("channels_integration.urls")),
    path("admin/", admin.site.urls),
]
handler400 = "agent_jobs.api.errors.handler400"
handler403 = "agent_jobs.api.errors.handler403"
handler404 = "agent_jobs.api.errors.handler404"
handler500 = "agent_jobs.api.errors.handler500"
