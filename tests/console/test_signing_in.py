import pytest
from django.test import Client

from tests import rows
from tests.console.conftest import PASSWORD

DOOR = "/console/"


def sign_in(browser, username="jane", password=PASSWORD, **more):
    return browser.post(DOOR, {"username": username, "password": password, **more})


def test_somebody_in_one_organisation_goes_straight_to_it(person):
    person()

    assert sign_in(Client())["Location"] == "/console/acme/"


def test_somebody_in_several_chooses(person):
    person()
    person("rival", username="jane")

    html = sign_in(Client()).content.decode()

    assert "/console/acme/" in html
    assert "/console/rival/" in html


def test_a_wrong_name_and_a_wrong_password_look_the_same(person):
    person()
    wrong = [sign_in(Client(), password="wrong"), sign_in(Client(), username="nobody")]

    assert [answer.status_code for answer in wrong] == [200, 200]
    for answer in wrong:
        assert "This name and password do not belong together." in answer.content.decode()


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/console/", "/admin/"])
def test_nobody_is_sent_elsewhere_after_the_sign_in(person, elsewhere):
    person()

    assert sign_in(Client(), next=elsewhere)["Location"] == "/console/acme/"
    assert sign_in(Client(), next="/console/acme/jobs?status=failed")["Location"] == "/console/acme/jobs?status=failed"


def test_five_wrong_passwords_lock_the_name_out_in_words(person):
    person()
    browser = Client()
    for _ in range(5):
        answer = sign_in(browser, password="wrong")

    assert answer.status_code == 429
    assert "Too many wrong tries" in answer.content.decode()
    assert sign_in(browser).status_code == 429


def test_a_sign_out_needs_a_post(admin):
    assert admin.get("/console/sign-out").status_code == 405
    assert admin.post("/console/sign-out").status_code == 302
    assert admin.get("/console/acme/jobs").status_code == 302


def test_a_form_needs_its_token(person):
    person()
    browser = Client(enforce_csrf_checks=True)

    assert browser.post(DOOR, {"username": "jane", "password": PASSWORD}).status_code == 403


def test_a_closed_organisation_has_no_pages(admin):
    org = rows.org()
    org.closed_at = org.created_at
    org.save()

    assert admin.get("/console/acme/jobs").status_code == 404


def test_a_person_changes_their_password(member, django_user_model):
    sent = {"old_password": PASSWORD, "new_password1": "a much longer one 7", "new_password2": "a much longer one 7"}

    assert member.post("/console/acme/password/change", {**sent, "old_password": "wrong"}).status_code == 400
    assert member.post("/console/acme/password/change", sent).status_code == 302
    assert member.get("/console/acme/jobs").status_code == 200
    assert django_user_model.objects.get(username="mel").check_password("a much longer one 7")


def test_an_organisations_address_may_lack_its_last_slash(admin):
    answer = admin.get("/console/acme")

    assert (answer.status_code, answer["Location"]) == (302, "/console/acme/")
