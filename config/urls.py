"""All URLs of the service. Errors raised outside the views also have the API's error format."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("agent_jobs.api.urls")),
    path("", include("channels_integration.urls")),
    path("", include("agent_jobs.dialects.urls")),
    path("console/", include("agent_jobs.console.urls")),
    path("admin/", admin.site.urls),
]
handler400 = "agent_jobs.api.errors.handler400"
handler403 = "agent_jobs.api.errors.handler403"
handler404 = "agent_jobs.api.errors.handler404"
handler500 = "agent_jobs.api.errors.handler500"
