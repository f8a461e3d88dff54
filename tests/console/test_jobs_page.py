from tests import rows

JOBS = "/console/acme/jobs"


def test_the_list_shows_jobs_of_the_organisation_only(admin):
    rows.job_type()
    ours = rows.job(params={"name": "Ann"})
    theirs = rows.job(org_id="rival")

    html = admin.get(JOBS).content.decode()

    assert str(ours.pk) in html
    assert str(theirs.pk) not in html
