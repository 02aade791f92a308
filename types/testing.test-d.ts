import Fastify from 'fastify'
import { fromClient, type TestClient } from 'fastify-real-ip/testing'
import { expectError, expectType } from 'tsd'

const app = Fastify()
void app.inject({ url: '/', ...fromClient('203.0.113.7') })
void app.inject({ url: '/', ...fromClient({ address: '203.0.113.7', port: 51234, source: 'vtoa', trust: 'trusted' }) })
void app.inject({ url: '/', ...fromClient({ trust: 'unverified', reason: 'unverified-peer' }) })
expectType<string | undefined>(({} as TestClient).address)
expectError(fromClient())
expectError(fromClient({ source: 'nonsense' }))
expectError(fromClient({ trust: true }))
