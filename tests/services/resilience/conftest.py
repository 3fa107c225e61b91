"""The Redis that tests of this folder may ask for."""

from tests.support.redis import own_redis, redis_server, redis_url

__all__ = ["own_redis", "redis_server", "redis_url"]
