"""The WSGI application that gunicorn serves (`config/gunicorn.py`)."""

import os
import warnings

from django.core.wsgi import get_wsgi_application

from agent_jobs.sandbox import pool

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# Only an image has run collectstatic; elsewhere WhiteNoise serves from the apps' folders, as the settings say.
warnings.filterwarnings("ignore", message="No directory at", category=UserWarning)

application = get_wsgi_application()

# Fewer than the threads of a process (16): costly schemas and templates leave some for everything else.
pool.limit_callers(6)
