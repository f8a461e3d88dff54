"""Keys of an organisation for providers of language models. Its admins set them; no response shows them."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import scopes
from agent_jobs.api.base import Resource
from agent_jobs.api.docs import item_of, operation, page_of, removal
from agent_jobs.api.fields import StrictSerializer, Text
from agent_jobs.api.formatting import shown
from agent_jobs.audit import audit_log
from agent_jobs.catalog import model_keys
from agent_jobs.reads import queries


class ModelKeyRequest(StrictSerializer):
    key = Text(max_length=500, help_text="Never shown.")
    base_url = Text(
        max_length=2_000,
        required=False,
        allow_blank=True,
        help_text="The only address to send the key to, as https://…; empty: the provider's own address.",
    )


class ModelKeySerializer(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    provider = serializers.CharField()
    key = serializers.CharField(help_text=f"Always {audit_log.MASK}.")
    base_url = serializers.CharField(required=False)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ModelKeysMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    count = serializers.IntegerField()
    total = serializers.IntegerField()


ModelKeyItem = item_of("ModelKeyItem", ModelKeySerializer)
ModelKeyList = page_of("ModelKeyList", ModelKeySerializer, ModelKeysMeta)


def _shown(key: Any) -> dict[str, Any]:
    return shown(ModelKeySerializer, vars(key), key=audit_log.MASK)


class _ModelKeyAdmin(Resource):
    level = scopes.Level.ADMIN

    def item(self, key: Any) -> dict[str, Any]:
        return {"data": _shown(key), "meta": self.meta(key.provider)}


class ModelKeys(_ModelKeyAdmin):
    @operation("model_keys_list", "List keys for models", answers={200: ModelKeyList})
    def get(self, request: Request, org_id: str) -> Response:
        self.asked()
        self.require_org(org_id)
        keys = [_shown(key) for key in queries.model_keys(self.org_id)]
        return Response({"data": keys, "meta": {"org_id": self.org_id, "count": len(keys), "total": len(keys)}})


class ModelKeyDetail(_ModelKeyAdmin):
    @operation("model_keys_retrieve", "Get a key for models", answers={200: ModelKeyItem})
    def get(self, request: Request, org_id: str, provider: str) -> Response:
        self.asked()
        self.require_org(org_id)
        found = None if "\x00" in provider else queries.model_keys(self.org_id).filter(provider=provider).first()
        if found is None:
            raise model_keys.key_not_found(provider)
        return Response(self.item(found))

    @operation(
        "model_keys_put",
        "Keep a key for models",
        answers={200: ModelKeyItem},
        refused=(409,),
        request=ModelKeyRequest,
        description="Replaces an existing key. The key is sealed, never shown, and sent only to the host of base_url;"
        " without one, to the provider's own.",
    )
    def put(self, request: Request, org_id: str, provider: str) -> Response:
        fields = self.asked(body=ModelKeyRequest).body
        self.require_org(org_id)
        return Response(self.item(model_keys.put_key(self.org_id, provider, actor=self.actor, **fields)))

    @operation("model_keys_delete", "Remove a key for models", answers={200: removal("RemovedModelKey")})
    def delete(self, request: Request, org_id: str, provider: str) -> Response:
        self.asked()
        self.require_org(org_id)
        if "\x00" in provider:
            raise model_keys.key_not_found(provider)
        model_keys.remove_key(self.org_id, provider, actor=self.actor)
        return Response({"meta": self.meta(provider), "message": f"Key for '{provider}' removed"})
